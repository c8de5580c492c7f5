"""Do the samples of a run show digits?  A classifier trained on real MNIST says which, and how sure it is.

    python -m experiments.judge RUN --data-dir DIR [--num 1000] [--seed 0] [--judge runs/judge]

Prints one JSON object: the judge's accuracy and confidence on the real test split, and its confidence, the share of each class
and the smallest share on samples of RUN.  The judge is trained once and kept in a run directory of its own.
"""

import argparse
import json
import pathlib
import sys

from gm_jax import data, runs
from gm_jax.cli import opened
from gm_jax.errors import Stopped, UserError

SEED, STEPS, BATCH = 0, 2000, 128  # of the judge


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


def draw(path: pathlib.Path, num: int, seed: int):
  """Images 0 to num - 1 of `seed` from a run, uint8 [num, H, W, C]."""
  from gm_jax import parallel, sampling

  run = opened.open_run(path)
  model = run.module.model(run.config)
  _, state = opened.restore(run, model, parallel.single())
  return sampling.draw(model, state, seed=seed, num=num)


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(prog="python -m experiments.judge", description=__doc__.splitlines()[0])
  parser.add_argument("run", type=pathlib.Path)
  parser.add_argument("--data-dir", default=None)
  parser.add_argument("--num", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--judge", type=pathlib.Path, default=pathlib.Path("runs/judge"))
  options = parser.parse_args(arguments)
  try:
    print(json.dumps(report(options)))
  except UserError as error:
    print(f"{parser.prog}: {error}", file=sys.stderr)
    return 2
  except Stopped as stop:
    print(f"{parser.prog}: {stop}", file=sys.stderr)
    return 128 + stop.signal_number
  return 0


def report(options) -> dict:
  """The judgement of samples, beside that of the real test split."""
  from gm_jax.metrics import classifier

  if options.num < 1:
    raise UserError(f"--num is {options.num}; take at least 1")
  shape, dtype = opened.open_run(options.run).shapes["image"]
  if (shape[1:], dtype) != ([28, 28, 1], "uint8"):
    raise UserError(f"{options.run} models {dtype} {shape[1:]}; the judge reads uint8 [28, 28, 1]")
  train, test = (data.tfds_images("mnist", split, options.data_dir) for split in ("train", "test"))
  module, variables = train_classifier(train, run=options.judge)
  samples = draw(options.run, options.num, options.seed)
  found = classifier.probabilities(module, variables, test.arrays["image"]).argmax(-1)
  return {
    "judge": {
      "test_accuracy": float((found == test.arrays["label"]).mean()),
      **classifier.judge(module, variables, test.arrays["image"]),
    },
    "samples": {"run": str(options.run), "seed": options.seed, **classifier.judge(module, variables, samples)},
  }


if __name__ == "__main__":
  sys.exit(main())
