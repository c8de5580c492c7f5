"""The densities of several runs on one law of the plane, side by side with the truth, each with its gap to it.

    python -m experiments.densities RUN... --out F.png [--split test]

The runs are of experiments that name their LAW and the REACH of a picture of it: mixture_moons, infinite_mixture_moons.
"""

import argparse
import pathlib
import sys

from gm_jax import hooks, runs
from gm_jax.cli import opened
from gm_jax.errors import UserError


def open_runs(paths: list[pathlib.Path]) -> list[opened.Run]:
  """The runs, all on one law; UserError where they are not."""
  found = [opened.open_run(path) for path in paths]
  for run in found:
    if not (hasattr(run.module, "LAW") and hasattr(run.module, "REACH")):
      raise UserError(f"{run.path} is a run of {run.name}, which has no law on the plane; take a run of mixture_moons")
    if run.module.LAW.name != found[0].module.LAW.name:
      laws = f"{run.module.LAW.name}, and that of {found[0].path} is {found[0].module.LAW.name}"
      raise UserError(f"the law of {run.path} is {laws}; take runs on one law")
  return found


def draw(found: list[opened.Run], split: str):
  """The picture, uint8 [H, W, 3], with a panel for the truth and one for each run."""
  from experiments import laws, plots
  from gm_jax import evaluation, parallel

  module = found[0].module
  figure, axes = plots.figure(columns=len(found) + 1, size=2.6)
  plots.density(axes[0, 0], module.LAW.log_prob, module.REACH, title=f"the truth: {module.LAW.name}")
  strategy = parallel.single()
  for axis, run in zip(axes[0, 1:], found):
    model = run.module.model(run.config)
    _, state = opened.restore(run, model, strategy)
    dataset = run.module.data(run.config)[split]
    measured = evaluation.evaluate(
      run.module.measure(run.config), state, dataset, batch_size=len(dataset), seed=0, strategy=strategy
    )
    gap = measured["metrics"]["gap"]
    title = f"{_name(run)}: gap {gap['mean']:.3f} nats"
    plots.density(axis, laws.log_density(model, state), module.REACH, title=title)
    print(f"{run.path}: gap {gap['mean']:.4f} +- {gap['stderr']:.4f} nats on {gap['count']} points")
  return plots.to_array(figure)


def _name(run: opened.Run) -> str:
  num_components = getattr(run.config, "num_components", None)
  return run.name.removesuffix("_moons").replace("_", " ") if num_components is None else f"{num_components} components"


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(prog="python -m experiments.densities", description=__doc__.splitlines()[0])
  parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path, help="runs' directories")
  parser.add_argument("--out", metavar="F.png", type=pathlib.Path, required=True, help="where the picture goes")
  parser.add_argument("--split", default="test", choices=("train", "test"), help="of the gaps (default: %(default)s)")
  options = parser.parse_args(arguments)
  try:
    runs.write_atomically(options.out, hooks.encode(draw(open_runs(options.runs), options.split)))
  except UserError as error:
    print(f"{parser.prog}: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
