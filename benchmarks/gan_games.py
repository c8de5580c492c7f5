"""Are GANs created equal?  Seven games and BEGAN, one architecture, three seeds: Frechet distance at its best and at the end.

Command: python benchmarks/gan_games.py --data-dir DIR      (options as of `python -m experiments.compare_games`)
Hardware: 2 CPU cores
Minutes: 40
Expected: no game's last distance is more than 1.3 times its best

It is `python -m experiments.compare_games`, kept as a record; what that has trained already is not trained again.
"""

import json
import pathlib
import sys

import record

from experiments import compare_games

MOST = 1.3  # last over best; above it a game has collapsed late


def main() -> int:
  code = compare_games.main(sys.argv[1:])
  if code:
    return code
  options = compare_games.read(sys.argv[1:])
  found = json.loads((pathlib.Path(options.runs) / compare_games.RECORD).read_text())
  print(record.write("gan_games", found))
  late = [name for name, row in found["rows"].items() if row["ratio"] > MOST]
  print(f"{len(found['rows']) - len(late)} of {len(found['rows'])} games end within {MOST} of their best")
  return int(bool(late))


if __name__ == "__main__":
  sys.exit(main())
