"""Where a generator's images come from: laws of z.

A law is a function from a key to the z of one example, [Z]; `draw` gives as many rows as are wanted, row i a function of the
key and of i alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax import random


def draw(law: Callable, key, num: int):
  """z [num, Z]."""
  return jax.vmap(law)(random.keys(key, num))


def normal(num: int) -> Callable:
  """Standard normal, Z = num."""
  return lambda key: jax.random.normal(key, (num,))


def uniform(num: int) -> Callable:
  """Uniform in [-1, 1], as in DCGAN."""
  return lambda key: jax.random.uniform(key, (num,), minval=-1.0, maxval=1.0)


def sphere(num: int) -> Callable:
  """Uniform on the sphere of radius sqrt(num), on which a normal z nearly lies."""

  def law(key):
    z = jax.random.normal(key, (num,))
    return z * jnp.sqrt(num) / jnp.linalg.norm(z)

  return law


def categorical(num: int) -> Callable:
  """One of `num` classes, all equally likely, as a vector of zeros and a one."""
  return lambda key: jax.nn.one_hot(jax.random.randint(key, (), 0, num), num)


def bernoulli(num: int) -> Callable:
  """Every number of z is -1 or 1, with equal chances: 2^num corners."""
  return lambda key: jax.random.rademacher(key, (num,), jnp.float32)


def beside(*laws: Callable) -> Callable:
  """Independent parts side by side: `beside(normal(30), categorical(10))` lets the generator make ten kinds of things."""

  def law(key):
    return jnp.concatenate([part(key) for part, key in zip(laws, jax.random.split(key, len(laws)))])

  return law
