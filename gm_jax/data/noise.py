"""Random numbers by address: what a run's seed, a purpose, a step and a row name, and nothing else.

The numpy counterpart of `gm_jax.random`.  Philox computes block c of a stream from c alone (Salmon et al. 2011), so any row of
any step is reached at once, on any process, and its raw words are the same in every version of numpy.
"""

import math

import numpy as np

SHUFFLE, TRAIN, EVALUATE, FREEZE, POINTS, SHUFFLE_CLASS, STACK = range(7)  # purposes

_HALVES = 16  # Philox makes 256 bits per block: sixteen numbers of 16 bits


def bits(seed: int, purpose: int, index: int, block: int = 0) -> np.random.Philox:
  """The stream of random bits at this address, from 256-bit block `block` on."""
  return np.random.Philox(counter=[block, index, purpose, 0], key=[seed, 0])


def permutation(seed: int, epoch: int, num: int, purpose: int = SHUFFLE) -> np.ndarray:
  """The order in which epoch `epoch` visits `num` examples, int64 [num]."""
  # Sorted raw words and not `Generator.permutation`, whose stream numpy may change between versions.
  return np.argsort(bits(seed, purpose, epoch).random_raw(num), kind="stable")


def uniform16(seed: int, purpose: int, index: int, first: int, num: int, shape) -> np.ndarray:
  """Rows first to first + num - 1 of uniform integers in [0, 65536), uint16 [num, *shape]."""
  size = math.prod(shape)
  blocks = -(-size // _HALVES)  # a row starts at a block of its own, so no row depends on how many are drawn
  words = bits(seed, purpose, index, first * blocks).random_raw(num * blocks * 4)
  return words.view(np.uint16).reshape(num, blocks * _HALVES)[:, :size].reshape(num, *shape)
