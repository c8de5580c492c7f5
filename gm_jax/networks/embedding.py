"""A number as a vector that a network can tell apart from its neighbours."""

import math

import jax.numpy as jnp


def sinusoidal(t, dim: int, max_period: float = 10_000.0):
  """Times t [B] -> [B, dim], sines then cosines, of periods from 2 pi to 2 pi `max_period` in geometric steps.

  Vaswani et al. 2017, section 3.5, as DDPM uses it.  Made for t in the hundreds: times in [0, 1] want a factor of 1000 first.
  """
  if dim % 2 or dim < 4:
    raise ValueError(f"the embedding has pairs of at least two frequencies: dim is even and at least 4, not {dim}")
  half = dim // 2
  frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / (half - 1))
  angles = t.astype(jnp.float32)[:, None] * frequencies[None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
