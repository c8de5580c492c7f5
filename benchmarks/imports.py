"""What it costs to begin: importing gm_jax beside importing what it stands on, and the answer of `gm-jax --help`.

Command: python benchmarks/imports.py
Hardware: 2 CPU cores
Minutes: 1
Expected: all of gm_jax at most 1.5 times jax + flax + optax; --help within 500 ms

Each time is that of a fresh interpreter, from its start to its end.
"""

import subprocess
import sys

import record

EVERYTHING = "core, distributions, images, parallel, sampling, data, evaluation, checkpoint, train, hooks"
FAMILIES = "from gm_jax.approximate import vae; from gm_jax.implicit import gan; from gm_jax.score import diffusion"
PROGRAMS = {
  "python": "pass",
  "jax + flax + optax": "import jax, flax.linen, optax",
  "gm_jax": "import gm_jax",
  "all of gm_jax": f"from gm_jax import {EVERYTHING}; {FAMILIES}; from gm_jax.tractable import mixture",
  "gm-jax --help": "from gm_jax.cli import main; main(['--help'])",
  "gm-jax list": "from gm_jax.cli import main; main(['list'])",
}
MOST_RATIO, MOST_HELP_MS = 1.5, 500


def main() -> int:
  run = lambda code: lambda: subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
  seconds = record.interleaved({name: run(code) for name, code in PROGRAMS.items()}, repeats=11)
  times = {name: record.summary(values) for name, values in seconds.items()}
  ratio = times["all of gm_jax"]["median_ms"] / times["jax + flax + optax"]["median_ms"]
  print(record.write("imports", {"times": times, "ratio": round(ratio, 3)}))
  for name, time in times.items():
    print(f"{name:<20}{time['median_ms']:8.0f} ms")
  print(f"all of gm_jax takes {ratio:.2f} times as long as jax + flax + optax")
  return 0 if ratio <= MOST_RATIO and times["gm-jax --help"]["median_ms"] <= MOST_HELP_MS else 1


if __name__ == "__main__":
  sys.exit(main())
