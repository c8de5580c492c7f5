"""What images have lost, given back: PSNR and SSIM of each run that restores, beside simple methods on the same images.

Command: python benchmarks/restoration.py RUN... [--num 1000]        (runs of restore_mnist, restore_cifar10, autoencoder_mnist)
Hardware: 2 CPU cores
Minutes: 3
Expected: every run above every simple method in PSNR, on test images

It is `gm-jax restore RUN... --json`, kept as a record.
"""

import argparse
import contextlib
import io
import json
import sys

import record

from gm_jax.cli import main as gm_jax
from gm_jax.tasks import restoration


def rows(reports: list) -> dict:
  """A row for each run, named after its experiment and task."""
  found = {}
  for report in reports:
    protocol = report["protocol"]
    config = protocol["config"]
    scores = {
      method: {name: [score["mean"], score["stderr"]] for name, score in metrics.items()}
      for method, metrics in report["methods"].items()
    }
    row = {"experiment": protocol["experiment"], "data": protocol["data"], "num": protocol["num"], "step": protocol["step"]}
    name = " ".join(filter(None, (protocol["experiment"], config.get("task"))))
    found[name] = {**row, "task": config.get("task", f"code of {config.get('num_codes')}"), "methods": scores}
  return found


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("run", nargs="+", metavar="RUN")
  parser.add_argument("--num", default="1000", metavar="N")
  options = parser.parse_args()
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    code = gm_jax(["restore", *options.run, "--num", options.num, "--json"])
  if code:
    return code
  found = rows(json.loads(printed.getvalue())["runs"])
  print(record.write("restoration", {"rows": found}))
  beaten = [name for name, row in found.items() if best(row) != "model"]
  print(f"{len(found) - len(beaten)} of {len(found)} runs are above all simple methods")
  return int(bool(beaten))


def best(row: dict) -> str:
  """The method of the highest PSNR; images that nothing befell are no method."""
  scores = {method: metrics["psnr"][0] for method, metrics in row["methods"].items()}
  return max((method for method in scores if scores[method] < restoration.EXACT - 0.01), key=scores.get)


if __name__ == "__main__":
  sys.exit(main())
