"""Are GANs created equal?  Every game of `gan_mnist` with several seeds, by the Frechet distance at its best and at the end.

    python -m experiments.compare_games --data-dir DIR [--games hinge wgan_gp] [--seeds 3] [--runs runs/compare_games]

Trains RUNS/GAME-SEED by `gan_mnist` at its defaults, one by one; what is done is skipped and what was stopped goes on, so
the same command finishes a table that was begun.  RUNS/table.json holds what is printed: mean and deviation over seeds of each
run's best and last distance, and their ratio.  Above 1.3 a game collapses late.
"""

import dataclasses
import json
import pathlib
import statistics
import sys

from experiments import base, distances, gan_mnist
from gm_jax import checkpoint, runs
from gm_jax.cli import answered, opened, tables
from gm_jax.cli.options import Parser, alternatives, check_range
from gm_jax.errors import UserError

PROGRAM = "python -m experiments.compare_games"
GAMES = tuple(gan_mnist.RECIPES)
RECORD = "table.json"
REFERENCE = "the MNIST test split, in the last hidden layer of the classifier of experiments/judge.py"


def compare(config: gan_mnist.Config, chosen, seeds: int, place: pathlib.Path) -> dict:
  """The record of all runs, which are trained where they have not been: {"protocol", "training_images", "rows"}."""
  unknown = [game for game in chosen if game not in GAMES]
  if unknown:
    raise UserError(f"unknown game {unknown[0]!r}; {alternatives(unknown[0], GAMES)}")
  check_range("--seeds", seeds, 1, 1000)
  rows = {}
  for game in chosen:
    courses = []
    for seed in range(seeds):
      directory = place / f"{game}-{seed}"
      finish(dataclasses.replace(config, game=game, seed=seed), directory)
      courses.append(distances.course(distances.history(runs.read_metrics(directory))))
    rows[game] = row(courses)
  return {"protocol": protocol(config, seeds), "training_images": real(config), "rows": rows}


def finish(config: gan_mnist.Config, directory: pathlib.Path) -> None:
  """Train the run in `directory` to its end, unless it is there already; UserError if it is another one."""
  import jax

  from gm_jax.cli import training

  if max(checkpoint.steps(runs.checkpoints(directory)), default=0) < config.steps:
    training.train_experiment("gan_mnist", gan_mnist, config, directory)
    jax.clear_caches()  # the next run is another program
  elif _learnt(opened.open_run(directory).config) != _learnt(config):
    raise UserError(f"{directory} was trained with other options than the table's; name another place with --runs")


def row(courses: list[distances.Course]) -> dict:
  """Of one game's runs, seed by seed: means and deviations; "ratio" is of the means, and "worst_ratio" that of one run."""
  best, last = [course.best for course in courses], [course.last for course in courses]
  return {
    "best": _mean_and_deviation(best),
    "last": _mean_and_deviation(last),
    "ratio": statistics.fmean(last) / statistics.fmean(best),
    "worst_ratio": max(course.last / course.best for course in courses),
    "runs": [course._asdict() for course in courses],
  }


def protocol(config: gan_mnist.Config, seeds: int) -> dict:
  common = {name: value for name, value in _learnt(config).items() if name not in ("game", "seed")}
  return {"distance": f"Frechet, from {REFERENCE}", "samples": config.frechet_samples, "seeds": seeds, "config": common}


def real(config: gan_mnist.Config) -> float:
  """The distance of as many training images, which a perfect generator would have."""
  judge = distances.judge_of_mnist(config.data_dir, config.judge)
  return judge.distance(gan_mnist.data(config)["train"].arrays["image"][: config.frechet_samples])


def table(record: dict) -> str:
  """A line for each game, the lowest last distance first."""
  shown = lambda pair: f"{pair[0]:.2f} +- {pair[1]:.2f}"
  lines = []
  for name, found in sorted(record["rows"].items(), key=lambda entry: entry[1]["last"][0]):
    lines.append([name, shown(found["best"]), shown(found["last"]), f"{found['ratio']:.2f}", f"{found['worst_ratio']:.2f}"])
  lines.append(["training images", "", f"{record['training_images']:.2f}", "", ""])
  return tables.grid(["game", "best", "last", "last / best", "worst run"], lines, texts=1)


def _learnt(config: gan_mnist.Config) -> dict:
  """The fields that decide what is learnt and measured."""
  return {name: value for name, value in dataclasses.asdict(config).items() if name not in base.FREE}


def _mean_and_deviation(values: list[float]) -> list[float]:
  return [statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0]


def main(arguments=None) -> int:
  return answered(PROGRAM, lambda: show(read(arguments)))


def read(arguments):
  parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0])
  parser.add_argument("--data-dir", default=None)
  parser.add_argument("--games", nargs="+", default=GAMES, metavar="GAME")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/compare_games"))
  return parser.parse_args(arguments)


def show(options) -> None:
  """Fill the table, keep it and print it."""
  record = compare(gan_mnist.Config(data_dir=options.data_dir), options.games, options.seeds, options.runs)
  runs.write_atomically(options.runs / RECORD, (json.dumps(record, indent=2) + "\n").encode())
  print(table(record))


if __name__ == "__main__":
  sys.exit(main())
