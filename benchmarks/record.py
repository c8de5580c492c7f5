"""What every benchmark shares: timing side by side, and a record of what was measured and where.

Machines are shared and drift, so times are only compared within one run, turn by turn: A B A B, medians, ratios.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def interleaved(functions: dict[str, Callable], repeats: int = 11, warmup: int = 1) -> dict[str, list[float]]:
  """Seconds of each call, function by function in turn: {name: [repeats]}.

  Each function takes nothing and returns what must be ready before the clock stops.  `warmup` calls, compilation among them,
  are not timed.
  """
  for _ in range(warmup):
    for function in functions.values():
      jax.block_until_ready(function())
  seconds = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - start)
  return seconds


@contextlib.contextmanager
def apart(systems: dict[str, tuple]):
  """Systems in processes of their own, so that the threads and the memory settings of one are not another's.

  Args:
    systems: {name: (make, *arguments)}, where `make(*arguments)`, a function of the script's top level, returns what is to be
      known of the system and {what: function}, functions as of `interleaved`.

  Yields:
    ({name: what is known of it}, `functions(what)`: {name: function} for `interleaved`).
  """
  context = multiprocessing.get_context("spawn")
  pipes, processes = {}, []
  for name, (make, *arguments) in systems.items():
    pipes[name], theirs = context.Pipe()
    processes.append(context.Process(target=_serve, args=(theirs, make, arguments), daemon=True))
    processes[-1].start()
    theirs.close()

  def call(name: str, what: str):
    pipes[name].send(what)
    pipes[name].recv()

  known = {name: pipe.recv() for name, pipe in pipes.items()}
  yield known, lambda what: {name: functools.partial(call, name, what) for name in pipes}
  for pipe in pipes.values():
    pipe.close()
  for process in processes:
    process.join()


def _serve(pipe, make: Callable, arguments: list) -> None:
  """Runs what is asked for until nobody asks."""
  known, functions = make(*arguments)
  pipe.send(known)
  with contextlib.suppress(EOFError):
    while True:
      jax.block_until_ready(functions[pipe.recv()]())
      pipe.send(None)


def summary(seconds: list[float]) -> dict:
  """Median and quartiles, in milliseconds."""
  low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
  milliseconds = lambda time: round(time * 1e3, 3)
  return {"median_ms": milliseconds(median), "quartiles_ms": [milliseconds(low), milliseconds(high)], "repeats": len(seconds)}


def write(name: str, payload: dict, packages=("jax", "jaxlib", "flax", "numpy")) -> pathlib.Path:
  """Writes benchmarks/results/NAME.json: `payload`, and command, commit, machine and versions with it."""
  record = {
    "benchmark": name,
    "date": datetime.date.today().isoformat(),
    "command": shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
    "commit": commit(),
    "device": jax.devices()[0].device_kind,
    "processor": processor(),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "load_before": round(_LOAD, 2),
    "versions": {"python": platform.python_version()} | {package: importlib.metadata.version(package) for package in packages},
    **payload,
  }
  RESULTS.mkdir(exist_ok=True)
  path = RESULTS / f"{name}.json"
  path.write_text(json.dumps(record, indent=2) + "\n")
  return path


def commit() -> str | None:
  """The checkout's commit, with "+" where tracked files differ from it; None outside a checkout."""
  git = lambda *arguments: subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True).stdout.strip()
  changed = git("status", "--porcelain", "--untracked-files=no", "--", "gm_jax", "benchmarks/*.py")
  return (git("rev-parse", "--short", "HEAD") + ("+" if changed else "")) or None


def processor() -> str:
  """The processor's name."""
  information = pathlib.Path("/proc/cpuinfo")
  lines = information.read_text().splitlines() if information.exists() else []
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.processor() or platform.machine()


_LOAD = os.getloadavg()[0]  # of the machine's other work: this file is imported before anything is timed
