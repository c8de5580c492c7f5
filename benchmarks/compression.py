"""Test images on disk: what the likelihood of each run promises, what its files take, and what PNG and WebP take.

Command: python benchmarks/compression.py RUN... [--data-dir DIR] [--keep]
Hardware: 2 CPU cores
Minutes: 1 for each network learnt by counting
Expected: every bit back in another process; files at most 1 % longer than promised; the best run's is shorter than PNG and WebP

Each run is of the same images.  With --keep, the rows of runs that are not named stay in the record as they were, each with the
date of its own measurement.  Seconds are those of one compression and one decompression, without the start of the program.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import record

from experiments import base
from gm_jax.cli import arrays, opened

MOST_OVERHEAD = 0.01
PROGRAM = "import sys; from gm_jax.cli import main; sys.exit(main())"


def gm_jax(*arguments) -> dict:
  command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--json"]
  return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_images(path: pathlib.Path, data_dir: str | None):
  run = opened.open_run(path)
  config = dataclasses.replace(run.config, data_dir=data_dir or run.config.data_dir)
  return arrays.read(run.module.data(config)["test"], seed=0)


def options_of(path: pathlib.Path) -> str:
  """What the run was asked for besides its experiment's defaults, as on the command line."""
  run, usual = opened.open_run(path), {field.name for field in dataclasses.fields(base.Run)}
  told = lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else value
  own = [field.name for field in dataclasses.fields(run.config) if field.name not in usual - {"steps"}]
  changed = [name for name in own if getattr(run.config, name) != getattr(run.module.Config(), name)]
  return " ".join(f"{base.option(name)} {told(getattr(run.config, name))}" for name in changed)


def measured(path: pathlib.Path, data_dir: str | None) -> dict:
  """A row of the record: there and back again, by two processes."""
  with tempfile.TemporaryDirectory() as place:
    file, back = pathlib.Path(place) / "images.gmz", pathlib.Path(place) / "images.npy"
    there = gm_jax("compress", path, "--out", file, *(["--data-dir", data_dir] if data_dir else []))
    again = gm_jax("decompress", path, file, "--out", back)
    same = np.array_equal(np.load(back), test_images(path, data_dir))
  bits = {name: round(value, 3) for name, value in there["bits_per_image"].items()}
  seconds = {"compress_seconds": round(there["seconds"], 1), "decompress_seconds": round(again["seconds"], 1)}
  protocol = {name: there["protocol"][name] for name in ("experiment", "step", "data", "split", "binarization")}
  protocol["options"] = options_of(path)
  bits = {"bits_per_image": bits, "overhead": there["overhead"], **seconds, "same": same}
  return {**protocol, "count": there["count"], **bits, "date": datetime.date.today().isoformat()}


def earlier() -> dict:
  """The rows of the last record."""
  path = record.RESULTS / "compression.json"
  last = json.loads(path.read_text()) if path.exists() else {"rows": {}}
  return {name: {"date": last["date"], **row} for name, row in last["rows"].items()}


def main() -> int:
  options = argparse.ArgumentParser()
  options.add_argument("runs", nargs="+", type=pathlib.Path)
  options.add_argument("--data-dir")
  options.add_argument("--keep", action="store_true")
  options = options.parse_args()
  rows = earlier() if options.keep else {}
  rows |= {path.name: measured(path, options.data_dir) for path in options.runs}
  if len({(row["data"], row["split"], row["binarization"], row["count"]) for row in rows.values()}) > 1:
    sys.exit("the runs are not of the same images")
  sys.argv = sys.argv[:1] + ["RUN..."]  # where runs and data lie says nothing to others
  print(record.write("compression", {"rows": rows}, packages=("jax", "jaxlib", "flax", "numpy", "constriction", "pillow")))
  good, shorter = True, []
  for name, row in rows.items():
    bits = row["bits_per_image"]
    mine, promised, others = bits.pop("file"), bits.pop("likelihood"), min(bits.values())
    seconds = row["compress_seconds"], row["decompress_seconds"]
    print(f"{name:<24}{mine:9.2f} bits per image, {promised:9.2f} promised; the best other format {others:9.2f}; {seconds} s")
    good &= row["same"] and row["overhead"] <= MOST_OVERHEAD
    shorter.append(mine < others)
  return 0 if good and any(shorter) else 1


if __name__ == "__main__":
  sys.exit(main())
