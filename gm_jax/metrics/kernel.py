"""How far apart are two sets of features, moment by moment?  The kernel distance (Binkowski et al. 2018,
https://arxiv.org/abs/1801.01401).

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)        k(x, y) = (x . y / D + 1)^3

is zero if and only if the first three moments of both laws agree.  Its estimator is unbiased at any number of samples, so it
may fall below zero, and it assumes no Gaussian.  It is called KID where the features are Inception's, and nowhere else.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError
from gm_jax.metrics.frechet import checked


class KernelDistance(NamedTuple):
  """A mean over blocks that share no sample."""

  distance: float
  stderr: float  # of the mean, from how much the blocks differ
  num_blocks: int
  block: int  # samples of each set in a block


def polynomial(x, y, degree: int = 3) -> np.ndarray:
  """k(x, y) = (x . y / D + 1)^degree: x [N, D], y [M, D] -> [N, M]."""
  return (x @ y.T / x.shape[1] + 1) ** degree


def unbiased(features, reference, kernel: Callable = polynomial) -> float:
  """MMD^2 from all pairs of features [N, D] and reference [M, D], none with itself (Gretton et al. 2012, eq. 3).

  Memory is that of kernels [N, N], [M, M] and [N, M]; `distance` takes larger sets.
  """
  x, y = _pair(features, reference)
  if min(len(x), len(y)) < 2:
    raise UserError(f"sets of {len(x)} and {len(y)} examples; pairs take at least 2 of each")
  return float(_mean_of_others(kernel(x, x)) + _mean_of_others(kernel(y, y)) - 2 * kernel(x, y).mean())


def distance(features, reference, *, seed: int, block: int = 1000, kernel: Callable = polynomial) -> KernelDistance:
  """MMD^2 with its standard error: the mean of `unbiased` over disjoint blocks of both sets.

  Blocks are independent, so their spread gives the error of their mean; of subsets that overlap it would not.  What does not
  fill a block is left out.  Memory is that of three kernels [block, block].

  Args:
    features: of the samples, [N, D].
    reference: real ones, [M, D].
    seed: of the order in which examples are dealt into blocks.
    block: examples of each set in one block, at most half of the smaller set.
    kernel: `(x [N, D], y [M, D]) -> [N, M]`, positive definite.
  """
  x, y = checked(features), checked(reference, "the reference")
  num_blocks = min(len(x), len(y)) // block if block > 1 else 0
  if num_blocks < 2:
    raise UserError(f"blocks of {block} from sets of {len(x)} and {len(y)}: two blocks take 2 to {min(len(x), len(y)) // 2}")
  generator = np.random.default_rng(seed)
  dealt = [generator.permutation(len(array))[: num_blocks * block].reshape(num_blocks, block) for array in (x, y)]
  values = np.array([unbiased(x[mine], y[theirs], kernel) for mine, theirs in zip(*dealt)])
  return KernelDistance(float(values.mean()), float(values.std(ddof=1) / np.sqrt(num_blocks)), num_blocks, block)


def _mean_of_others(square) -> float:
  return (square.sum() - np.trace(square)) / (len(square) * (len(square) - 1))


def _pair(features, reference):
  x, y = checked(features).astype(np.float64), checked(reference, "the reference").astype(np.float64)
  if x.shape[1] != y.shape[1]:
    raise UserError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions cannot be compared")
  return x, y
