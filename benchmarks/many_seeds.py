"""Eight seeds of a GAN of points in one program, against eight runs in turn: rows of `experiments.gan_table`.

Command: python benchmarks/many_seeds.py
Hardware: 2 CPU cores
Minutes: 6
Expected: 1.59 to 1.86 times as fast (wanted: 1.5)

The players are those of `gan_modes`, by themselves and with the remedies that keep all modes, at the 64 points a step of the
table and at four times as many.  A turn is STEPS steps of each of the seeds: of all at once (gm_jax/implicit/many.py), or of
one seed after the other.  The CPU counts as a device for each core, as `--cpu-devices 2` makes it: all at once are dealt out to
them (`--strategy ensemble`), and one after the other are on the first, since a single net this small has nothing to cut.  "one
device" is all at once on the first as well.  Either way a step tells each seed's metrics.  Steps are called one by one, one
ahead, as the training loop does on a CPU.  Each seed learns the same either way, which is asserted first.
A ratio is the median over turns of two times of one turn, between which the machine has least time to change.
"""

import itertools
import statistics
import sys

import jax
import numpy as np
import record

from experiments import gan_modes, gan_table
from gm_jax import memory, parallel
from gm_jax.implicit import many

SEEDS, STEPS, DEVICES = 8, 50, 2
ROWS = "non_saturating", "non_saturating+instance_noise+richer_latents+r1"
BATCHES, LEAST, TOLERANCE = (64, 256), 1.5, 1e-3


def trainer(model, strategy: parallel.Strategy, batch):
  """`(state at the start, steps) -> state`, compiled."""
  step = strategy.step(model.step)

  def train(start, steps: int = STEPS):
    state, before = jax.device_put(start, strategy.shardings(start)), None
    for index in range(steps):
      state, metrics = step(np.uint32(0), np.int32(index), state, strategy.place_batch(batch))
      jax.block_until_ready(before)
      before = metrics
    return state

  return train


def of_seed(model, index: int):
  """The model by the keys that it has among others."""
  return model._replace(step=lambda key, state, batch: model.step(jax.random.fold_in(key, index), state, batch))


def measure(row: str, batch) -> dict:
  """Times of each way, and how many times as fast as in turn the others are."""
  model = gan_modes.one(gan_table.config_of(row))
  together = many.many(model, SEEDS)
  start = jax.device_get(jax.jit(together.init)(jax.random.key(0), batch))
  own = [many.pick(start, index) for index in range(SEEDS)]
  at_once, on_one = (trainer(together, strategy, batch) for strategy in (parallel.ensemble(), parallel.single()))
  alone = trainer(model, parallel.single(), batch)
  for index in (0, SEEDS - 1):
    expected = trainer(of_seed(model, index), parallel.single(), batch)(own[index], 5)
    for train in (at_once, on_one):
      apart = difference(many.pick(train(start, 5), index), expected)
      assert apart < TOLERANCE, f"seed {index} learns something else among others: {apart}"
  seconds = record.interleaved(
    {
      "at once": lambda: at_once(start),
      "one device": lambda: on_one(start),
      "in turn": lambda: [alone(state) for state in own],
    },
    repeats=21,
  )
  ratio = lambda way: round(float(statistics.median(np.divide(seconds["in turn"], seconds[way]))), 2)
  times = {name: record.summary(values) for name, values in seconds.items()}
  return {"times": times, "times_as_fast": {way: ratio(way) for way in ("at once", "one device")}}


def difference(ours, theirs) -> float:
  """The largest between two states, key for key."""
  apart = jax.tree.map(lambda a, b: np.abs(np.asarray(a, np.float64) - np.asarray(b)).max(), ours, theirs)
  return max(jax.tree.leaves(apart))


def main() -> int:
  memory.keep()  # as every gm-jax command does; it is the whole process's
  parallel.split_cpu(DEVICES)
  rows = {}
  for name, size in itertools.product(ROWS, BATCHES):
    batch = {"image": np.random.default_rng(0).normal(size=(size, 1, 1, 2)).astype(np.float32)}
    rows[f"{name}, {size} points"] = row = measure(name, batch)
    print(f"{name}, {size} points", row, flush=True)
  payload = {"seeds": SEEDS, "steps": STEPS, "rows": rows}
  print(record.write("many_seeds", payload).relative_to(record.ROOT))
  return int(min(row["times_as_fast"]["at once"] for row in rows.values()) < LEAST)


if __name__ == "__main__":
  sys.exit(main())
