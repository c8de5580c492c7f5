"""Scoring a whole split: each example once, in order, and the mean taken in one place.

A report carries its protocol, because a number without one cannot be compared:

    {"metrics": {"nll": {"mean": 98.1, "stderr": 0.3, "unit": "nats", "count": 10000}}, "protocol": {"data": "mnist", ...}}
"""

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gm_jax import data, images, parallel, random, rows
from gm_jax.errors import NonFiniteError

LIKELIHOODS = ("nll", "nll_bound")
# All others are plain: "1".
IN_NATS = *LIKELIHOODS, "nll_error", "distortion", "rate", "hole", "information", "reverse_kl"
UNITS = dict.fromkeys(IN_NATS, "nats") | {"psnr": "dB"}


def evaluate(
  measure: Callable,
  state,
  dataset,
  *,
  batch_size: int,
  seed: int,
  strategy: parallel.Strategy,
  protocol: dict | None = None,
) -> dict:
  """The mean and standard error of every metric over a split.

  Args:
    measure: `(key, state, batch) -> {name: [B]}`, `model.evaluate` as a rule; likelihoods in nats per example.
    state: the model's state, under `strategy` or on one device.
    dataset: the split, a `data.Dataset` or whatever `data.epoch` reads.
    batch_size: examples at a time; no result depends on it, since what `measure` draws for an example belongs to its index.
    seed: of those draws.
    strategy: the devices.
    protocol: whatever else the numbers depend on.  With "bin_width" (see `images.bits_per_dim`) likelihoods are also
      reported in bits per dimension.

  Returns:
    `{"metrics": {name: {"mean", "stderr", "unit", "count"}}, "protocol": {...}}`, ready for JSON.

  Raises:
    NonFiniteError: an example scored NaN or infinity.  It is never left out of a mean.
  """
  scores = per_example(measure, state, dataset, batch_size=batch_size, seed=seed, strategy=strategy)
  example, _ = next(data.epoch(dataset, 1))
  num_dims = example["image"].size
  protocol = {**dataset.protocol, "num_dims": num_dims, "seed": seed, **(protocol or {})}
  metrics = {}
  for name, values in scores.items():
    metrics[name] = summary(name, values)
    if name in LIKELIHOODS and "bin_width" in protocol:
      bits = images.bits_per_dim(values, num_dims, protocol["bin_width"])
      metrics[f"{name}_bits_per_dim"] = summary(name, bits) | {"unit": "bits/dim"}
  return {"metrics": metrics, "protocol": protocol}


def per_example(
  measure: Callable, state, dataset, *, batch_size: int, seed: int, strategy: parallel.Strategy
) -> dict[str, np.ndarray]:
  """Every example's scores in the order of the split, float64 [N] per name; arguments as for `evaluate`."""
  batch_size = math.ceil(batch_size / strategy.num_devices) * strategy.num_devices
  start, stop = strategy.local_rows(batch_size)
  # Every process ends up with all the scores, so that every process can print them.
  everywhere = NamedSharding(strategy.mesh, PartitionSpec())
  scored = jax.jit(_scored, static_argnums=0, out_shardings=everywhere)
  pieces = []
  for index, (batch, valid) in enumerate(data.epoch(dataset, batch_size, seed)):
    placed = strategy.place_batch({name: array[start:stop] for name, array in batch.items()})
    outputs = scored(measure, np.uint32(seed), np.int32(index * batch_size), state, placed)
    pieces.append({name: np.asarray(values, np.float64)[valid] for name, values in outputs.items()})
  return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _scored(measure, seed, first, state, batch):
  with rows.view(first):
    return measure(random.stream(seed, random.EVALUATE), state, batch)


def summary(name: str, values: np.ndarray) -> dict:
  """Mean, standard error of the mean, unit and count of one score per example, [N]."""
  bad = np.flatnonzero(~np.isfinite(values))
  if len(bad):
    raise NonFiniteError(f"{name} of example {bad[0]} is {values[bad[0]]}; so are {len(bad)} of {len(values)} examples")
  stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None  # one example has no spread
  return {"mean": float(values.mean()), "stderr": stderr, "unit": _unit(name), "count": len(values)}


def over_models(name: str, values: np.ndarray) -> dict:
  """Mean, standard deviation, unit and count of a number that each of N models has, [N]: what another seed would give."""
  found = summary(name, values)
  std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
  return {"mean": found["mean"], "std": std, "unit": found["unit"], "count": found["count"]}


def _unit(name: str) -> str:
  """Of a metric; `rate_top`, `rate_1` and the like are parts of the rate, and so with information."""
  whole, _, part = name.partition("_")
  return UNITS.get(whole if part and whole in ("rate", "information") else name, "1")
