"""Games and remedies for collapse: the modes that ten seeds of each find on the grid of 25, kept as a record.

Command: python benchmarks/gan_modes.py [RUNS/LAW/table.json]        (as `python -m experiments.gan_table` writes it)
Hardware: 2 CPU cores
Minutes: not measured yet; this copies what is measured
Expected: at least three rows with all modes, 95 % of high quality and a reverse divergence of at most 0.04 nats
"""

import argparse
import json
import pathlib
import sys

import record

from experiments import gan_table


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("table", nargs="?", type=pathlib.Path, default=pathlib.Path("runs/gan_table/grid/table.json"))
  options = parser.parse_args()
  found = json.loads(options.table.read_text())
  rows = found["rows"]
  order = [gan_table.DATA, *gan_table.ROWS]
  found["rows"] = {name: rows[name] for name in [*order, *(name for name in rows if name not in order)] if name in rows}
  print(record.write("gan_modes", found))
  del rows[gan_table.DATA]
  reaching = [name for name, row in rows.items() if gan_table.reaches(row, found["protocol"]["modes"])]
  print(f"{len(reaching)} rows reach the bar: {', '.join(reaching)}")
  return int(len(reaching) < 3)


if __name__ == "__main__":
  sys.exit(main())
