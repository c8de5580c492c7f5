"""Diffusion recipes side by side: bits/dim two ways, digits asked for by label, how much of the data samples cover, solvers.

Command: python benchmarks/diffusion.py RUN... --data-dir DIR      (runs of ddpm_mnist, edm_mnist, flow_matching_mnist)
Hardware: 2 CPU cores
Minutes: 10 a run
Expected: at least 97 % of guided samples are the digit that was asked for

It is `gm-jax likelihood RUN`, `gm-jax solvers RUN` and `python -m experiments.judge RUN` (with `--labels`, guided; and without,
where nothing is asked for and nothing guided), kept as a record.
"""

import argparse
import contextlib
import io
import json
import pathlib
import sys
from collections.abc import Callable

import record

from experiments import judge
from gm_jax.cli import main as gm_jax

BUDGETS = ("5", "10", "20", "40")  # evaluations of the network for a sample


def row(run: pathlib.Path, options) -> dict:
  """All that is measured of one run."""
  place = ["--data-dir", options.data_dir] if options.data_dir else []
  scores = printed(gm_jax, ["likelihood", str(run), "--num", str(options.scored), *place, "--json"])
  found = {name: [score["mean"], score["stderr"], score["unit"]] for name, score in scores["metrics"].items()}
  table = printed(gm_jax, ["solvers", str(run), "--evaluations", *BUDGETS, "--json"])
  judged = lambda *how: printed(judge.main, [str(run), "--num", str(options.num), *place, *how])
  guided, free = judged("--labels"), judged()
  return {
    "protocol": scores["protocol"],
    "scores": found,
    "guided": guided["samples"] | guided["features"],
    "free": free["samples"] | free["features"],
    "training_images": free["training_images"],
    "evaluations": table["evaluations"],
    "distances": table["distances"],
  }


def printed(command: Callable, arguments: list[str]) -> dict:
  """The JSON object that a command prints; what it complains of ends this one too."""
  text = io.StringIO()
  with contextlib.redirect_stdout(text):
    code = command(arguments)
  if code:
    sys.exit(code)
  return json.loads(text.getvalue())


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("run", nargs="+", type=pathlib.Path, metavar="RUN")
  parser.add_argument("--data-dir", metavar="D")
  parser.add_argument("--num", type=int, default=500, metavar="N", help="samples of each kind (default: %(default)s)")
  parser.add_argument("--scored", type=int, default=300, metavar="N", help="test images (default: %(default)s)")
  options = parser.parse_args()
  rows = {run.name: row(run, options) for run in options.run}
  print(record.write("diffusion", {"rows": rows}))
  for name, found in rows.items():
    bound, flow = (found["scores"][f"{key}_bits_per_dim"][0] for key in ("nll_bound", "nll"))
    obeyed, coverage = found["guided"]["accuracy"], found["free"]["coverage"]
    print(f"{name}: bound {bound:.3f}, flow {flow:.3f} bits/dim; {obeyed:.1%} of digits as asked; coverage {coverage:.3f}")
  return int(any(found["guided"]["accuracy"] < 0.97 for found in rows.values()))


if __name__ == "__main__":
  sys.exit(main())
