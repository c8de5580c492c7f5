"""Games and remedies for collapse: the modes that ten seeds of each find, on a grid of 25 and a ring of 8, kept as a record.

Command: python benchmarks/gan_modes.py [RUNS/LAW/table.json ...]        (as `python -m experiments.gan_table` writes them)
Hardware: 2 CPU cores
Minutes: 28 and 9 for the tables, `--law grid --steps 8000 --jobs 2` and `--law ring --steps 2500 --jobs 2`; this copies them
Expected: 3 rows of the grid and 5 of the ring with all modes, 95 % of high quality and at most 0.04 nats
"""

import argparse
import json
import pathlib
import sys

import record

from experiments import gan_modes, gan_table


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  places = [pathlib.Path("runs/gan_table", law, "table.json") for law in gan_modes.LAWS]
  parser.add_argument("tables", nargs="*", type=pathlib.Path, default=places)
  laws, reaching = {}, {}
  for table in parser.parse_args().tables:
    found = json.loads(table.read_text())
    rows, law = found["rows"], found["protocol"]["config"]["law"]
    order = [gan_table.DATA, *gan_table.ROWS]
    found["rows"] = {name: rows[name] for name in [*order, *(name for name in rows if name not in order)] if name in rows}
    laws[law] = found
    del rows[gan_table.DATA]
    reaching[law] = [name for name, row in rows.items() if gan_table.reaches(row, found["protocol"]["modes"])]
    print(f"{law}: {len(reaching[law])} rows reach the bar: {', '.join(reaching[law])}")
  print(record.write("gan_modes", {"laws": laws}))
  return int(min(map(len, reaching.values())) < 3)


if __name__ == "__main__":
  sys.exit(main())
