"""Gradients of convolutions on a CPU: flax's against gm_jax's.

Command: python benchmarks/conv.py
Hardware: 2 CPU cores
Minutes: 3
Expected: transposed convolutions, and all convolutions inside lax.scan, at least 5 times faster; others at top level the same
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import record

from gm_jax.networks.conv import Conv, ConvTranspose

BATCH = 64

# name: (the layer of flax or gm_jax, input [H, W, C], inside a loop?, the least ratio asked for)
ROWS = {
  "transposed 4x4 stride 2, 128 -> 64 at 7x7": (lambda m: m.ConvTranspose(64, (4, 4), (2, 2)), (7, 7, 128), False, 5.0),
  "transposed 4x4 stride 2, 64 -> 32 at 14x14": (lambda m: m.ConvTranspose(32, (4, 4), (2, 2)), (14, 14, 64), False, 5.0),
  "3x3, 64 -> 64 at 14x14, in lax.scan": (lambda m: m.Conv(64, (3, 3)), (14, 14, 64), True, 5.0),
  "4x4 stride 2, 64 -> 128 at 14x14, in lax.scan": (lambda m: m.Conv(128, (4, 4), (2, 2)), (14, 14, 64), True, 5.0),
  "transposed 4x4 stride 2, 128 -> 64 at 7x7, in lax.scan": (
    lambda m: m.ConvTranspose(64, (4, 4), (2, 2)), (7, 7, 128), True, 5.0),
  "3x3, 64 -> 64 at 14x14": (lambda m: m.Conv(64, (3, 3)), (14, 14, 64), False, None),
  "4x4 stride 2, 64 -> 128 at 14x14": (lambda m: m.Conv(128, (4, 4), (2, 2)), (14, 14, 64), False, None),
}  # fmt: skip


class Project:
  Conv, ConvTranspose = Conv, ConvTranspose


def gradient(layer, in_scan: bool):
  """(params, x) -> gradient of a scalar of the layer's output, by both; alone in a scan of one step if asked."""

  def loss(params, x):
    return jnp.square(layer.apply(params, x)).mean()

  def in_loop(params, x):
    step = lambda carry, x: (carry, jax.grad(loss, (0, 1))(carry, x))
    return jax.lax.scan(step, params, x[None])[1]

  return jax.jit(in_loop if in_scan else jax.grad(loss, (0, 1)))


def difference(a, b) -> float:
  """Largest difference of two pytrees, each leaf in units of its own largest entry."""
  leaf = lambda a, b: np.abs(np.ravel(a) - np.ravel(b)).max() / np.abs(b).max()
  return float(max(jax.tree.leaves(jax.tree.map(leaf, a, b))))


def measure(build, shape, in_scan: bool) -> dict:
  """One row of the table."""
  x = jax.random.normal(jax.random.key(0), (BATCH, *shape))
  params = build(nn).init(jax.random.key(1), x)
  functions = {name: gradient(build(module), in_scan) for name, module in (("flax", nn), ("gm_jax", Project))}
  off_by = difference(functions["gm_jax"](params, x), functions["flax"](params, x))
  seconds = record.interleaved({name: lambda f=f: f(params, x) for name, f in functions.items()}, repeats=9)
  row = {name: record.summary(times) for name, times in seconds.items()}
  return {**row, "ratio": round(row["flax"]["median_ms"] / row["gm_jax"]["median_ms"], 2), "difference": off_by}


def main() -> int:
  results, failures = {}, []
  print(f"{'gradient (params and input), batch ' + str(BATCH):<58}{'flax ms':>10}{'gm_jax ms':>11}{'ratio':>8}{'differs':>10}")
  for name, (build, shape, in_scan, least) in ROWS.items():
    row = results[name] = measure(build, shape, in_scan)
    flax, ours = row["flax"]["median_ms"], row["gm_jax"]["median_ms"]
    print(f"{name:<58}{flax:>10.1f}{ours:>11.1f}{row['ratio']:>8.1f}{row['difference']:>10.0e}", flush=True)
    if row["difference"] > 1e-5 or (least and row["ratio"] < least):
      failures.append(name)
  print(f"-> {record.write('conv', {'batch': BATCH, 'rows': results}).relative_to(record.ROOT)}")
  for name in failures:
    print(f"below its target: {name}")
  return 1 if failures else 0


if __name__ == "__main__":
  sys.exit(main())
