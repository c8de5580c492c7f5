"""Do the samples of a run show digits, and all of them?  A classifier trained on real MNIST says which, and how sure it is.

    python -m experiments.judge RUN --data-dir DIR [--num 1000] [--seed 0] [--labels] [--judge runs/judge] [options of the run]

Prints one JSON object: the judge's accuracy and confidence on the real test split, and its confidence, the share of each class
and the smallest share on samples of RUN.  With `--labels` the run is asked for each digit in turn, and "accuracy" is how often
it obeyed.  Options of the run's own that decide how it samples may follow: `--guidance 1 --sample-steps 50`.

"features" compares the samples with as many test images in the judge's last hidden layer: Frechet distance, precision, recall,
density and coverage; "training_images" is what as many real images get, and a perfect model would.  The judge is trained once
and kept in a run directory of its own.
"""

import json
import pathlib
import sys

import numpy as np

from experiments.base import FRAMED
from gm_jax import data, runs
from gm_jax.cli import answered, opened
from gm_jax.cli.options import Parser, parse
from gm_jax.data.padded import unframed
from gm_jax.errors import UserError

PROGRAM = "python -m experiments.judge"
SEED, STEPS, BATCH = 0, 2000, 128  # of the judge
SIZE = 28  # pixels a side


def train_classifier(dataset: data.Dataset, seed: int = SEED, steps: int = STEPS, run=None):
  """A classifier of the data set's labels; `run` keeps it, and gives it back the next time.

  Returns:
    (module, variables) as `metrics.classifier` takes them.
  """
  import optax

  from gm_jax import parallel
  from gm_jax.metrics import classifier
  from gm_jax.progress import Progress
  from gm_jax.train import train

  module = classifier.Classifier(num_classes=int(dataset.arrays["label"].max()) + 1)
  if run is not None:
    runs.open_run(run, {"judge": dataset.protocol, "seed": seed, "steps": steps, "batch_size": BATCH})
  model = classifier.classifier(module, optax.adam(optax.cosine_decay_schedule(2e-3, steps)), decay=0.99)
  batches = data.batches(dataset, BATCH, seed)
  hooks = [Progress(name="the judge")]
  state = train(model, batches, seed=seed, steps=steps, run=run, strategy=parallel.single(), hooks=hooks, save_every=500)
  return module, state.average.variables


def draw(path: pathlib.Path, num: int, seed: int, label=None, options: list[str] | None = None):
  """Images 0 to num - 1 of `seed` from a run, uint8 [num, H, W, C]; of the labels int32 [num], and sampled as `options` say."""
  from gm_jax import parallel, sampling

  run = opened.open_run(path)
  config = parse(run.module.Config, options or [], f"{run.name}'s options", run.config)
  model = run.module.model(config)
  _, state = opened.restore(run, model, parallel.dp())
  if label is not None and not (run.num_labels and opened.uses_labels(run, model, state)):
    raise UserError(f"--labels: {run.name} is not a conditional model; leave it out")
  return sampling.draw(model, state, seed=seed, num=num, condition=label)


def main(arguments=None) -> int:
  return answered(PROGRAM, lambda: print(json.dumps(report(*read(arguments)))))


def read(arguments) -> tuple:
  parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0])
  parser.add_argument("run", type=pathlib.Path)
  parser.add_argument("--data-dir", default=None)
  parser.add_argument("--num", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--labels", action="store_true")
  parser.add_argument("--judge", type=pathlib.Path, default=pathlib.Path("runs/judge"))
  return parser.parse_known_args(arguments)


def report(options, rest: list[str]) -> dict:
  """The judgement of samples, beside that of the real test split."""
  from gm_jax.metrics import classifier

  run = opened.open_run(options.run)
  shape, dtype = run.shapes["image"]
  if (shape[1:], dtype) not in (([SIZE, SIZE, 1], "uint8"), ([FRAMED, FRAMED, 1], "uint8")):
    known = f"uint8 [{SIZE}, {SIZE}, 1], and the middle of [{FRAMED}, {FRAMED}, 1]"
    raise UserError(f"{options.run} models {dtype} {shape[1:]}; the judge reads {known}")
  train, test = (data.tfds_images("mnist", split, options.data_dir) for split in ("train", "test"))
  most = len(test.arrays["image"])
  if not 10 <= options.num <= most:
    raise UserError(f"--num is {options.num}; take a number from 10 to {most}, which are compared with as many test images")
  label = np.arange(options.num, dtype=np.int32) % 10 if options.labels else None
  module, variables = train_classifier(train, run=options.judge)
  samples = unframed(draw(options.run, options.num, options.seed, label, rest), SIZE)
  judged = lambda pictures: classifier.judge(module, variables, pictures)
  seen = lambda pictures: classifier.features(module, variables, pictures[: options.num])
  accuracy = lambda pictures, label: classifier.accuracy(module, variables, pictures, label)
  reference, real = seen(test.arrays["image"]), seen(train.arrays["image"])
  obeyed = {} if label is None else accuracy(samples, label)
  return {
    "judge": {**accuracy(test.arrays["image"], test.arrays["label"]), **judged(test.arrays["image"])},
    "samples": {"run": str(options.run), "seed": options.seed, "options": rest, **obeyed, **judged(samples)},
    "features": compare(seen(samples), reference),
    "training_images": compare(real, reference),
  }


def compare(features, reference) -> dict:
  """Fidelity and diversity of samples whose features are [N, D], beside N real ones."""
  from gm_jax.metrics import frechet, manifold

  distance = frechet.distance(frechet.moments(features), frechet.moments(reference))
  found = {"frechet": distance, **manifold.precision_recall(features, reference)._asdict()}
  return {**found, **manifold.density_coverage(features, reference)._asdict()}


if __name__ == "__main__":
  sys.exit(main())
