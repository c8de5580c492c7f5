"""Games and remedies for collapse in one table: the modes that ten seeds of each find, and how many seeds collapse.

    python -m experiments.gan_table [--law grid] [--rows non_saturating hinge+packing_2] [--steps N] [--jobs 2]

Trains RUNS/LAW/ROW by `gan_modes`, `--jobs` of them at a time, each in a process of its own that writes RUNS/LAW/ROW.log; nets
this small have more of that than of more devices.  What is done is skipped and what was stopped goes on, so the same command
finishes a table that was begun.  A row is named after its game and its remedies, and any that `gan_modes` knows may be asked
for.  RUNS/LAW/table.json holds what is printed, over seeds: mean and deviation of modes, of the share of samples near one and
of the reverse divergence in nats, the share of seeds that do not cover all modes, and the seconds of training.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import pathlib
import statistics
import sys
import time

from experiments import base, gan_modes
from gm_jax import checkpoint, memory, runs
from gm_jax.cli import answered, tables
from gm_jax.cli.options import Parser, alternatives
from gm_jax.cli.parser import SPLIT
from gm_jax.errors import NonFiniteError, UserError

PROGRAM = "python -m experiments.gan_table"

# What a game is played with, besides the defaults; the fewer steps a generator makes, the shorter is its average.
RECIPES = {"wgan": {"n_critic": 5, "decay": 0.995}, "wgan_gp": {"n_critic": 2, "decay": 0.998}}

PLAIN = tuple(gan_modes.GAMES)
REMEDIED = tuple(f"non_saturating+{remedy}" for remedy in gan_modes.REMEDIES)
TOGETHER = (
  "non_saturating+instance_noise+r1",
  "non_saturating+instance_noise+richer_latents",
  "non_saturating+instance_noise+richer_latents+r1",
  "non_saturating+packing_2+instance_noise+richer_latents+r1",
  "hinge+instance_noise+richer_latents+r1",
  "least_squares+instance_noise+richer_latents+r1",
)
ROWS = PLAIN + REMEDIED + TOGETHER
DATA = "the law itself"


def config_of(row: str, **options) -> gan_modes.Config:
  """The configuration of a row, GAME+REMEDY+...; UserError where one of them is unknown."""
  game, *chosen = row.split("+")
  for kind, name, known in [("game", game, gan_modes.GAMES), *(("remedy", name, gan_modes.REMEDIES) for name in chosen)]:
    if name not in known:
      raise UserError(f"unknown {kind} {name!r} in row {row!r}; {alternatives(name, known)}")
  return gan_modes.Config(game=game, remedies=tuple(chosen), **RECIPES.get(game, {}), **options)


def fill(rows, place: pathlib.Path, jobs: int = 1, **options) -> dict:
  """The record of all rows so far, those asked for among them, trained if they have not been: {"protocol", "rows"}.

  Args:
    rows: their names.
    place: the directory of the law's runs; place/table.json is written after every row.
    jobs: rows that are trained at a time.
    options: of all rows, fields of `gan_modes.Config`.

  Raises:
    UserError: an unknown row, or a table that was begun with other options.
  """
  wanted = {row: config_of(row, **options) for row in rows}
  common, file = gan_modes.Config(**options), place / "table.json"
  record = {"protocol": protocol(common), "rows": {DATA: scored(gan_modes.of_data(common))}}
  if file.exists():
    before = json.loads(file.read_text())
    if before["protocol"] != record["protocol"]:
      raise UserError(f"{file} was begun with other options than these; name another place with --runs")
    record = before
  left = {row: config for row, config in wanted.items() if record["rows"].get(row, {}).get("config") != _learnt(config)}
  for row, found in finished(left, place, jobs):
    record["rows"][row] = found
    runs.write_atomically(file, (json.dumps(record, indent=2) + "\n").encode())
  return record


def finished(configs: dict[str, gan_modes.Config], place: pathlib.Path, jobs: int):
  """(row, its record), as each comes to its end."""
  if jobs == 1:
    yield from ((row, finish(config, place / row)) for row, config in configs.items())
    return
  place.mkdir(parents=True, exist_ok=True)
  spawn = multiprocessing.get_context("spawn")
  pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=spawn, initializer=memory.keep)
  try:
    pending = {pool.submit(_finish_logged, config, place / row): row for row, config in configs.items()}
    for done in concurrent.futures.as_completed(pending):
      print(f"{pending[done]}: done", flush=True)
      yield pending[done], done.result()
  finally:
    pool.shutdown(cancel_futures=True)


def _finish_logged(config: gan_modes.Config, directory: pathlib.Path) -> dict:
  with open(f"{directory}.log", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
    return finish(config, directory)


def finish(config: gan_modes.Config, directory: pathlib.Path) -> dict:
  """A row, trained to its end; "seconds" are those of training, compiling included, if it was not stopped on the way."""
  import jax

  from gm_jax import parallel
  from gm_jax.cli import opened, training

  begun = checkpoint.steps(runs.checkpoints(directory))
  start = time.perf_counter()
  try:
    training.train_experiment("gan_modes", gan_modes, config, directory)
  except NonFiniteError as error:
    print(f"{directory}: {error}", file=sys.stderr)
    return {"config": _learnt(config), "failed": str(error)}
  seconds = None if begun else time.perf_counter() - start
  _, state = opened.restore(opened.open_run(directory), gan_modes.model(config), parallel.ensemble())
  row = {"config": _learnt(config), "seconds": seconds, **scored(gan_modes.over_models(config, state, config.seed))}
  jax.clear_caches()  # the next row is another program
  return row


def scored(over_models: dict) -> dict:
  """Of values [N], one for each seed: {name: [mean, deviation]}, the collapse rate, and the values themselves."""
  values = {name: [float(value) for value in column] for name, column in over_models.items()}
  collapsed = values.pop("collapsed")
  pair = lambda column: [statistics.fmean(column), statistics.stdev(column) if len(column) > 1 else 0.0]
  return {
    **{name: pair(column) for name, column in values.items()},
    "collapse_rate": statistics.fmean(collapsed),
    "seeds": values,
  }


def reaches(row: dict, num_modes: int) -> bool:
  """All modes, to 0.2 of one in mean and deviation, 95 % of high quality and at most 0.04 nats."""
  if "failed" in row:
    return False
  mean, deviation = row["modes"]
  found = num_modes - mean <= 0.2 and deviation <= 0.2
  return found and row["high_quality"][0] >= 0.95 and row["reverse_kl"][0] <= 0.04


def table(record: dict, rows) -> str:
  """A line for each row; * marks those that reach the bar."""
  num_modes = record["protocol"]["modes"]
  head = ["row", f"modes of {num_modes}", "high quality", "reverse KL", "collapsed", "seconds", ""]
  lines = []
  for name in (DATA, *rows):
    row = record["rows"][name]
    if "failed" in row:
      lines.append([name, "not finite", "", "", "", "", ""])
      continue
    seconds = row.get("seconds")
    lines.append(
      [
        name,
        "{:.1f} +- {:.1f}".format(*row["modes"]),
        "{:.1%} +- {:.1%}".format(*row["high_quality"]),
        "{:.3f} +- {:.3f}".format(*row["reverse_kl"]),
        f"{row['collapse_rate']:.0%}",
        "" if seconds is None else f"{seconds:.0f}",
        "*" if reaches(row, num_modes) else "",
      ]
    )
  return tables.grid(head, lines, texts=1)


def protocol(config: gan_modes.Config) -> dict:
  """What all rows have in common: number of modes, how they are counted, and the options of training."""
  common = {name: value for name, value in _learnt(config).items() if name not in ("game", "remedies", "n_critic", "decay")}
  return {"modes": len(gan_modes.LAWS[config.law].centres), **gan_modes.protocol(config), "config": common}


def _learnt(config: gan_modes.Config) -> dict:
  """The fields that decide what is learnt and measured, as JSON has them."""
  fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in base.FREE}
  return json.loads(json.dumps(fields))


def main(arguments=None) -> int:
  return answered(PROGRAM, lambda: show(read(arguments)))


def read(arguments):
  parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0])
  parser.add_argument("--law", default="grid", choices=tuple(gan_modes.LAWS))
  parser.add_argument("--rows", nargs="+", default=ROWS, metavar="GAME+REMEDY", help="(default: all)")
  parser.add_argument("--steps", type=int, default=gan_modes.Config.steps)
  parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/gan_table"))
  parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows trained at a time (default: 1)")
  parser.add_argument("--cpu-devices", type=int, metavar="N", help=f"with --jobs 1: {SPLIT}")
  options = parser.parse_args(arguments)
  if options.jobs < 1:
    raise UserError(f"--jobs must be at least 1, not {options.jobs}")
  if options.jobs > 1 and options.cpu_devices:
    raise UserError(f"--jobs {options.jobs} and --cpu-devices {options.cpu_devices} exclude each other")
  return options


def show(options) -> None:
  """Fill the table and print it."""
  from gm_jax.cli import training

  training.split_cpu(options.cpu_devices)
  record = fill(options.rows, options.runs / options.law, options.jobs, law=options.law, steps=options.steps)
  print(table(record, options.rows))


if __name__ == "__main__":
  sys.exit(main())
