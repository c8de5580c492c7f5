"""A number as a vector that a network can tell apart from its neighbours; times and labels as what a network is told."""

import math

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError


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


def conditioning(time, label, *, dim: int, features: int, num_classes: int, time_scale: float):
  """What a network is told besides x: time [B], label int32 [B] or None -> [B, features], both in one vector.

  Two layers on the sinusoidal embedding of `time * time_scale` in `dim` numbers, and a learned row for each of `num_classes`
  labels.  Label `num_classes` means "no label", as does None.  All of it is float32 at any precision of the network: in
  bfloat16, 999 and 1000 are the same time.  Makes layers of the module that calls it.

  Raises:
    UserError: a label is given, and `num_classes` is 0.
  """
  if label is not None and not num_classes:
    raise UserError("this network was built without labels; give it num_classes")
  context = sinusoidal(time.astype(jnp.float32) * time_scale, dim)
  context = nn.Dense(features)(nn.silu(nn.Dense(features)(context)))
  if num_classes:
    label = jnp.full(time.shape, num_classes) if label is None else label
    context += nn.Embed(num_classes + 1, features)(label)
  return nn.silu(context)
