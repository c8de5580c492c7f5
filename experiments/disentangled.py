"""Does each latent of a run stand for one factor of the shapes, and each factor for one latent?  A table over runs.

    python -m experiments.disentangled RUN... [--json]

The runs are of beta_vae_sprites.  MIG on the training images, where there are more to count; DCI's predictors learn there and
are held against the test images; a latent is active if its posterior mean varies by more than 0.01 over the data.
"""

import argparse
import json
import pathlib
import sys

from gm_jax.cli import opened, tables
from gm_jax.errors import Stopped, UserError


def scores(run: opened.Run) -> dict:
  """The metrics of one run, ready for JSON."""
  import jax
  import numpy as np

  from gm_jax import parallel
  from gm_jax.approximate import vae
  from gm_jax.metrics import disentanglement, latents

  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  encode = jax.jit(lambda pixels: vae.encode(run.module.module(run.config), jax.random.key(0), state, pixels)[0])
  splits = {split: dataset.arrays for split, dataset in run.module.data(run.config).items()}
  codes = {split: np.asarray(encode(arrays["image"]), np.float64) for split, arrays in splits.items()}
  pairs = [(codes[split], splits[split]["factors"]) for split in ("train", "test")]
  found = disentanglement.dci(*pairs)
  return {
    "run": str(run.path),
    "step": step,
    "beta": run.config.beta,
    "mig": disentanglement.mutual_information_gap(*pairs[0]),
    "disentanglement": found.disentanglement,
    "completeness": found.completeness,
    "informativeness": found.informativeness,
    "active_units": latents.active_units(codes["train"]),
  }


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(prog="python -m experiments.disentangled", description=__doc__.splitlines()[0])
  parser.add_argument("run", type=pathlib.Path, nargs="+", metavar="RUN", help="runs of beta_vae_sprites")
  parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
  options = parser.parse_args(arguments)
  try:
    found = [opened.open_run(path) for path in options.run]
    for run in found:
      if run.name != "beta_vae_sprites":
        raise UserError(f"{run.path} is a run of {run.name}, whose factors nobody knows; take runs of beta_vae_sprites")
    rows = [scores(run) for run in found]
  except (UserError, Stopped) as error:
    print(f"disentangled: {error}", file=sys.stderr)
    return 2
  names = ("run", "beta", "mig", "disentanglement", "completeness", "informativeness", "active_units")
  shown = lambda value: f"{value:.3f}" if isinstance(value, float) else str(value)
  table = [[shown(row[name]) for name in names] for row in rows]
  print(json.dumps({"runs": rows}) if options.json else tables.grid([*names], table, texts=1))
  return 0


if __name__ == "__main__":
  sys.exit(main())
