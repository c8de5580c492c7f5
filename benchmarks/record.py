"""What every benchmark shares: timing side by side, and a record of what was measured and where.

Machines are shared and drift, so times are only compared within one run, turn by turn: A B A B, medians, ratios.
"""

import datetime
import importlib.metadata
import json
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
