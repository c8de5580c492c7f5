"""Draws whose rows belong to examples.

Row i of every draw here is a function of the key and of the *global* index of example i, and of nothing else: not of the batch
size, not of how many devices share the batch.  So image i of seed s is the same image on one CPU or on eight GPUs, drawn alone
or among a thousand.  (A normal draw is, but for its last bit: that is the compiler's inverse error function.)  Use these for
noise, latents, time steps, dropout and augmentation; use `jax.random` for what belongs to no example (parameters).

All functions take `(key, num, shape)` and return `[num, *shape]`.  Keys are required, and a key is used once.
"""

import jax
import jax.numpy as jnp

from gm_jax import rows


def keys(key, num: int):
  """One key per example: key [] -> keys [num]."""
  return jax.vmap(lambda index: jax.random.fold_in(key, index))(rows.indices(num))


def normal(key, num: int, shape=(), dtype=jnp.float32):
  """Standard normal draws, [num, *shape]."""
  return jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(keys(key, num))


def uniform(key, num: int, shape=(), dtype=jnp.float32, minval=0.0, maxval=1.0):
  """Uniform draws in [minval, maxval), [num, *shape]."""
  return jax.vmap(lambda k: jax.random.uniform(k, shape, dtype, minval, maxval))(keys(key, num))


def evenly(key, num: int):
  """Numbers that cover [0, 1) more evenly than chance, float32 [num]: a random start, then steps of the golden ratio (Weyl)."""
  golden = jnp.uint32(2654435769)  # 2^32 over the golden ratio: whole numbers wrap round without losing digits
  steps = rows.indices(num).astype(jnp.uint32) * golden + jax.random.bits(key)
  return (steps >> 8).astype(jnp.float32) * 2.0**-24


def randint(key, num: int, shape=(), minval=0, maxval=2, dtype=jnp.int32):
  """Uniform integers in [minval, maxval), [num, *shape]."""
  return jax.vmap(lambda k: jax.random.randint(k, shape, minval, maxval, dtype))(keys(key, num))


def bernoulli(key, probs):
  """True with probability `probs` [B, ...], independently; bool, the shape of `probs`."""
  return uniform(key, len(probs), probs.shape[1:]) < probs


def categorical(key, logits):
  """Indices with log-probabilities `logits` [B, ..., K] (unnormalised); int32 [B, ...]."""
  return jax.vmap(jax.random.categorical)(keys(key, len(logits)), logits)


def stream(seed, purpose: int):
  """The key of one use of a run's seed; `seed` is an integer in [0, 2**32), traced or not.

  Everything random in a run is `fold_in` of one of these: nothing random is ever saved, and resuming is exact.
  """
  return jax.random.fold_in(jax.random.key(seed), purpose)


INIT, STEP, SAMPLE, EVALUATE = range(4)  # purposes
