"""The curse of dimensionality in one table: how many numbers it takes to write a distribution over images down.

The full joint has a probability for each image that there could be, less one because they sum to one.  Each independence that
is assumed leaves fewer.
"""

import math

from gm_jax.errors import UserError
from gm_jax.tractable import counting

MOST = 50_000  # variables


def table(shape: tuple, levels: int) -> dict[str, int]:
  """{model: free parameters} of images [H, W, C] with so many levels, from the full joint down.

  Raises:
    UserError: more variables than `MOST`.
  """
  num = math.prod(shape)
  if num > MOST:
    raise UserError(f"{' x '.join(map(str, shape))} are {num:,} variables; take at most {MOST:,}")
  counts = lambda parents: counting.num_parameters(parents, levels)
  factorised = counts(counting.factorised(shape))
  return {
    "full joint": levels**num - 1,
    **{f"{k} causal neighbours": counts(counting.neighbourhood(shape, k)) for k in (10, 6, 4, 2)},
    "Markov chain": counts(counting.markov_chain(shape)),
    "Chow-Liu tree": counts([(), *[(0,)] * (num - 1)]),  # any tree has as many
    **{f"mixture of {k} factorised": k * factorised + k - 1 for k in (500, 10)},
    "factorised": factorised,
  }


def written(model: str, count: int, shape: tuple, levels: int) -> str:
  """A count as one reads it: all its digits, or the power that it is."""
  if count < 10**15:
    return f"{count:,}"
  power = f"{levels}^{math.prod(shape)} - 1, " if model == "full joint" else ""
  return f"{power}about 10^{math.log10(count):.1f}"
