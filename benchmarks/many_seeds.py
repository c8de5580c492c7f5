"""Eight seeds of a GAN of points in one program, against eight runs in turn.

Command: python benchmarks/many_seeds.py
Hardware: 2 CPU cores
Minutes: 1
Expected: not measured yet (wanted: 1.5 times as fast)

A turn is STEPS steps of each of the seeds: of all at once (gm_jax/implicit/many.py), or of one seed after the other.  "steps"
are called one by one, as the training loop does on a CPU; "scan" is all of a run's steps in one program, which leaves only the
arithmetic.  Each seed learns the same either way, which is asserted first.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record

from gm_jax import images
from gm_jax.implicit import gan, many
from gm_jax.networks.players import FlatCritic, FlatGenerator

SEEDS, WIDTH, LATENTS, STEPS = 8, 128, 2, 100
BATCHES, LEAST, TOLERANCE = (128, 256), 1.5, 1e-3


def make():
  """Two hidden layers each, and Adam."""
  hidden, optimizer = (WIDTH, WIDTH), optax.adam(1e-3, b1=0.5, eps=1e-5)
  players = FlatGenerator(hidden, (1, 1, 2), output=lambda x: x), FlatCritic(hidden)
  return gan.gan(*players, gan.non_saturating(), optimizer, optimizer, num_latents=LATENTS, pixels=images.POINTS)


class Runs:
  """A model and a batch for it, ready to be trained in both ways; `train*` returns the state after STEPS steps."""

  def __init__(self, model, batch):
    self.model, self.batch = model, batch
    self.init, self.step = jax.jit(model.init), jax.jit(model.step, donate_argnums=1)

    def advance(key, state, batch):
      move = lambda state, index: (model.step(jax.random.fold_in(key, index), state, batch)[0], None)
      return jax.lax.scan(move, state, jnp.arange(STEPS))[0]

    self.scan = jax.jit(advance, donate_argnums=1)

  def train(self, key, steps: int = STEPS):
    state = self.init(key, self.batch)
    for _ in range(steps):
      state, _ = self.step(key, state, self.batch)
    return state

  def train_scan(self, key):
    return self.scan(key, self.init(key, self.batch), self.batch)


def main() -> int:
  rows = {}
  for size in BATCHES:
    batch = {"image": np.random.default_rng(0).normal(size=(size, 1, 1, 2)).astype(np.float32)}
    rows[f"batch {size}"] = row = measure(Runs(make(), batch), Runs(many.many(make(), SEEDS), batch))
    print(f"batch {size}", row, flush=True)
  payload = {"seeds": SEEDS, "width": WIDTH, "steps": STEPS, "rows": rows}
  print(record.write("many_seeds", payload).relative_to(record.ROOT))
  return int(min(row["steps"]["ratio"] for row in rows.values()) < LEAST)


def measure(single: Runs, together: Runs) -> dict:
  """{way: times and ratio}."""
  key = jax.random.key(0)
  own = [jax.random.fold_in(key, index) for index in range(SEEDS)]
  for index in (0, SEEDS - 1):
    apart = difference(many.pick(together.train(key, 5), index), single.train(own[index], 5))
    assert apart < TOLERANCE, f"seed {index} learns something else among others: {apart}"
  return {
    "steps": compare({"at once": lambda: together.train(key), "in turn": lambda: [single.train(k) for k in own]}),
    "scan": compare({"at once": lambda: together.train_scan(key), "in turn": lambda: [single.train_scan(k) for k in own]}),
  }


def compare(functions: dict) -> dict:
  """Times of both, and how many times as fast all at once is."""
  seconds = record.interleaved(functions, repeats=9)
  times = {name: record.summary(values) for name, values in seconds.items()}
  return {"times": times, "ratio": round(times["in turn"]["median_ms"] / times["at once"]["median_ms"], 2)}


def difference(ours, theirs) -> float:
  """The largest between two states, key for key."""
  apart = jax.tree.map(lambda a, b: np.abs(np.asarray(a, np.float64) - np.asarray(b)).max(), ours, theirs)
  return max(jax.tree.leaves(apart))


if __name__ == "__main__":
  sys.exit(main())
