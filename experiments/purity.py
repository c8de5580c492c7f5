"""Is each category of an InfoGAN one digit?  A classifier trained on real MNIST says what the samples of each show.

    python -m experiments.purity RUN --data-dir DIR [--num 2000] [--seed 0] [--judge runs/judge]

The run is of infogan_mnist.  Prints one JSON object: the purity of the categories of its samples (those that `gm-jax sample
--seed SEED` draws) as clusters of what the classifier sees in them, the digit that most samples of each category show and their
share, how many digits have a category, and the judge's accuracy on the real test split.  Purity means something where "digits"
is 10: a generator of one digit alone is as pure as can be.  The judge is that of experiments/judge.py, trained once and kept.
"""

import json
import pathlib
import sys

import numpy as np

from experiments.judge import train_classifier
from gm_jax import data
from gm_jax.cli import answered, opened
from gm_jax.cli.options import Parser
from gm_jax.errors import UserError

PROGRAM = "python -m experiments.purity"


def main(arguments=None) -> int:
  return answered(PROGRAM, lambda: print(json.dumps(report(read(arguments)))))


def read(arguments):
  parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0])
  parser.add_argument("run", type=pathlib.Path)
  parser.add_argument("--data-dir", default=None)
  parser.add_argument("--num", type=int, default=2000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--judge", type=pathlib.Path, default=pathlib.Path("runs/judge"))
  return parser.parse_args(arguments)


def report(options) -> dict:
  """What the judge sees in samples of each category."""
  from gm_jax.metrics import classifier

  run = opened.open_run(options.run)
  if run.name != "infogan_mnist":
    raise UserError(f"{options.run} is a run of {run.name}, which has no categories; take a run of infogan_mnist")
  least = 10 * run.config.num_categories
  if not least <= options.num <= 100_000:
    raise UserError(f"--num is {options.num}; take a number from {least} to 100000")
  if not 0 <= options.seed < 2**32:
    raise UserError(f"--seed is {options.seed}; take a number from 0 to {2**32 - 1}")
  train, test = (data.tfds_images("mnist", split, options.data_dir) for split in ("train", "test"))
  module, variables = train_classifier(train, run=options.judge)
  seen = lambda pictures: classifier.probabilities(module, variables, pictures).argmax(-1)
  samples, categories = draw(run, options.num, options.seed)
  return {
    "run": str(options.run),
    "seed": options.seed,
    "count": options.num,
    **agreement(seen(samples), categories),
    "judge_accuracy": float((seen(test.arrays["image"]) == test.arrays["label"]).mean()),
  }


def draw(run: opened.Run, num: int, seed: int):
  """Samples 0 to num - 1 of `seed`, uint8 [num, H, W, C], and the category that each was made from, int [num]."""
  import jax

  from gm_jax import parallel, random, sampling
  from gm_jax.implicit import latents

  model = run.module.model(run.config)
  _, state = opened.restore(run, model, parallel.single())
  z = jax.jit(lambda key: latents.draw(run.module.law(run.config), key, num))(random.stream(seed, random.SAMPLE))
  first, last = run.config.num_latents, run.config.num_latents + run.config.num_categories
  return sampling.draw(model, state, seed=seed, num=num), np.asarray(z)[:, first:last].argmax(-1)


def agreement(digits, categories) -> dict:
  """Purity, and each category's digit: of digits int [N] seen in images made from categories int [N]."""
  from gm_jax.metrics import clustering

  table = clustering.contingency(digits, categories)
  drawn = np.flatnonzero(table.sum(1))
  named = {int(category): int(table[category].argmax()) for category in drawn}
  share = {category: float(table[category, digit] / table[category].sum()) for category, digit in named.items()}
  return {
    "purity": clustering.purity(digits, categories),
    "digits": len(set(named.values())),
    "categories": [{"category": category, "digit": named[category], "share": share[category]} for category in named],
  }


if __name__ == "__main__":
  sys.exit(main())
