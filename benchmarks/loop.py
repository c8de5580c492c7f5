"""What the loop costs, against calling the compiled step in a bare `for`; and how fast images come out of memory.

    python benchmarks/loop.py              # both parts, two to four minutes; writes benchmarks/results/loop.json

The two loops take turns inside one process, a hundred steps each.  `train` fetches every batch from an MNIST-sized data set,
hands it over, looks at every step for NaN, writes a line of metrics every fifty steps and keeps the progress display going; the
bare loop is given one batch that is on the device already, and waits once, at the end.

Times are taken twice: by the clock on the wall, which on a busy machine measures mostly who else is waiting for a core, and by
the processor time of all threads of the process, which hardly depends on that.
"""

import io
import statistics
import sys
import tempfile
import time

import jax
import numpy as np
import optax
import record

from gm_jax import data, hooks, parallel
from gm_jax.approximate import vae
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from gm_jax.progress import Progress
from gm_jax.train import train

TURN = 100  # steps


def mnist_sized() -> data.Dataset:
  draw = np.random.default_rng(0)
  image = draw.integers(0, 256, (60_000, 28, 28, 1), dtype=np.uint8)
  return data.from_arrays(image, draw.integers(0, 10, 60_000).astype(np.int32))


def make(width: int):
  module = vae.VAE(FlatEncoder((width,)), FlatDecoder((width,), (28, 28, 1)), vae.bernoulli(), num_latents=16)
  return vae.vae(module, optax.adam(1e-3))


class TakeTurns(hooks.Hook):
  """Every hundred steps: how long they took, and then as many steps of the bare loop."""

  every = TURN

  def __init__(self, model, batches):
    strategy = parallel.single()
    self.step, self.batch = strategy.step(model.step), jax.device_put(batches(0))
    self.state = strategy.init(model.init, 0, batches(0))
    self.wall, self.processor = {"train": [], "bare": []}, {"train": [], "bare": []}
    self.bare()  # compiles

  def bare(self):
    state = self.state
    for index in range(TURN):
      state, _ = self.step(np.uint32(0), np.int32(index), state, self.batch)
    self.state = jax.block_until_ready(state)

  def __call__(self, step, state, metrics):
    jax.block_until_ready(state)
    if step > TURN:  # the first turn holds the compilation
      self.note("train")
      self.bare()
      self.note("bare")
    self.since = time.perf_counter(), time.process_time()

  def note(self, name):
    now = time.perf_counter(), time.process_time()
    self.wall[name].append((now[0] - self.since[0]) / TURN)
    self.processor[name].append((now[1] - self.since[1]) / TURN)
    self.since = now


def overhead(width: int, batch_size: int, turns: int) -> dict:
  """Time per step in `train` and in the bare loop, turn by turn, and the median of their ratios."""
  model, batches = make(width), data.batches(mnist_sized(), batch_size, seed=0)
  turn = TakeTurns(model, batches)
  options = {"strategy": parallel.single(), "hooks": [turn, Progress(io.StringIO())], "log_every": 50, "save_every": 0}
  with tempfile.TemporaryDirectory() as run:
    train(model, batches, seed=0, steps=TURN * (turns + 1), run=run, **options)
  return {"wall": compared(turn.wall), "processor": compared(turn.processor)}


def compared(seconds: dict) -> dict:
  pairs = list(zip(seconds["train"], seconds["bare"]))
  return {
    **{name: record.summary(values) for name, values in seconds.items()},
    "overhead_percent": round(100 * (statistics.median(ours / bare for ours, bare in pairs) - 1), 2),
    "extra_us_per_step": round(1e6 * statistics.median(ours - bare for ours, bare in pairs)),
  }


def images_per_second(batch_size: int, seconds: float = 3.0) -> int:
  """Batches in a row from the data set in memory, across epochs, labels included."""
  batches = data.batches(mnist_sized(), batch_size, seed=0)
  batches(0)
  step, start = 0, time.perf_counter()
  while time.perf_counter() - start < seconds:
    batches(step := step + 1)
  return round(step * batch_size / (time.perf_counter() - start))


def main():
  payload = {
    "steps_of_about_10_ms": overhead(width=1100, batch_size=128, turns=40),
    "steps_as_short_as_they_get": overhead(width=16, batch_size=16, turns=12),
    "images_per_second_from_memory": {f"batch {size}": images_per_second(size) for size in (64, 256, 1024)},
    "target": {"overhead_percent": 3, "images_per_second": 1_000_000},
  }
  for name, value in payload.items():
    print(name, value)
  print(record.write("loop", payload), file=sys.stderr)


if __name__ == "__main__":
  main()
