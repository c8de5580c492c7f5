"""How much is there to know?  Entropies and divergences of tables, exactly; of whatever can be sampled, with an error.

    H(p) = -E_p[log p]      H(p, q) = -E_p[log q]      KL(p || q) = H(p, q) - H(p)      I(X; Y) = KL(p(x, y) || p(x) p(y))

Everything is in nats; `bits` converts.  A *table* is an array of probabilities that sum to one, with one axis per variable: the
joint distribution [K1, K2, ...].  It has no batch axis (use `jax.vmap`), and functions of tables return scalars.  What never
occurs counts as zero, 0 log 0 = 0, and has slope zero, where the true slope of an entropy is infinite.

Continuous laws have closed forms in `distributions`.  For all others an expectation is a mean of draws, and its error is known
from the same draws: `monte_carlo` returns an `Estimate`, whose variance falls as 1 / count whatever the dimension.
"""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Tables.


def bits(nats):
  """Nats -> bits."""
  return nats / math.log(2)


def entropy(table):
  """H(X1, X2, ...) of a table of any shape: of one variable, or the joint entropy of several."""
  return cross_entropy(table, table)


def cross_entropy(table, other):
  """H(p, q) = -sum p log q = H(p) + KL(p || q), for tables of one shape; infinite where q excludes what p does not."""
  occurs = table > 0
  return -jnp.where(occurs, table * jnp.log(jnp.where(occurs, other, 1.0)), 0.0).sum()


def kl(table, other):
  """KL(p || q) for tables of one shape; zero if and only if they are equal."""
  occurs = table > 0
  log_ratio = jnp.log(jnp.where(occurs, table, 1.0)) - jnp.log(jnp.where(occurs, other, 1.0))
  return jnp.where(occurs, table * log_ratio, 0.0).sum()


def conditional_entropy(joint, given):
  """H(rest | given): what is left to know once the variables on the axes `given` (an axis or several) are known."""
  # Of the conditional table itself and not H(joint) - H(given), whose digits cancel where little is left to know.
  some = marginal(joint, given)
  occurs = joint > 0
  conditional = jnp.where(occurs, joint, 1.0) / jnp.where(occurs, some, 1.0)
  return -(joint * jnp.log(conditional)).sum()


def mutual_information(joint, axes):
  """I(A; B), A the variables on `axes` (an axis or several) and B all others: what knowing one tells about the other."""
  rest = tuple(axis for axis in range(joint.ndim) if axis not in _axes(joint, axes))
  return kl(joint, marginal(joint, axes) * marginal(joint, rest))


def conditional_mutual_information(joint, axes, given):
  """I(A; B | C), A on `axes`, C on `given` and B all others: the mutual information that is left once C is known."""
  a, c = _axes(joint, axes), _axes(joint, given)
  b_and_c = tuple(axis for axis in range(joint.ndim) if axis not in a)
  apart = marginal(joint, (*a, *c)) * marginal(joint, b_and_c)
  some = marginal(joint, c)
  return kl(joint, apart / jnp.where(some > 0, some, 1.0))


def marginal(joint, axes):
  """The table of the variables on `axes`, all others summed out; their axes stay, with length one, so that it broadcasts."""
  kept = _axes(joint, axes)
  return joint.sum(tuple(axis for axis in range(joint.ndim) if axis not in kept), keepdims=True)


def _axes(joint, axes) -> tuple[int, ...]:
  axes = (axes,) if isinstance(axes, int) else tuple(axes)
  if not all(-joint.ndim <= axis < joint.ndim for axis in axes):
    raise ValueError(f"axes {axes} of a table with {joint.ndim} variables; they go from 0 to {joint.ndim - 1}")
  return tuple(axis % joint.ndim for axis in axes)


# Monte Carlo.


class Estimate(NamedTuple):
  """A mean of independent draws, and what the draws say about its error."""

  value: jax.Array  # the mean, unbiased
  stderr: jax.Array  # its standard error: deviation / sqrt(count); infinite for fewer than two draws
  count: jax.Array  # how many draws, int32 []

  def interval(self, confidence: float = 0.95):
    """(low, high) that cover the truth with this probability, once the mean is nearly normal.

    Student's quantile, not the normal one: with ten draws that would cover 92% for 95%.  It is the expansion of Abramowitz &
    Stegun 26.7.5, right to one part in a thousand from 9 draws on.
    """
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
      (z**3 + z) / 4,
      (5 * z**5 + 16 * z**3 + 3 * z) / 96,
      (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    freedom = jnp.maximum(self.count - 1, 1).astype(self.value.dtype)
    reach = (z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))) * self.stderr
    return self.value - reach, self.value + reach


def estimate(values) -> Estimate:
  """The mean over the leading axis: values [N, ...] -> an Estimate of [...]."""
  return _from_squares(values.mean(0), ((values - values.mean(0, keepdims=True)) ** 2).sum(0), jnp.int32(len(values)))


def merge(one: Estimate, other: Estimate) -> Estimate:
  """The estimate from both sets of draws together (Chan, Golub & LeVeque 1979)."""
  count = one.count + other.count
  share = other.count / jnp.maximum(count, 1).astype(one.value.dtype)
  shift = other.value - one.value
  # Squares are about each mean, never about the origin: nothing cancels where the mean is large beside the spread.
  squares = _squares(one) + _squares(other) + shift**2 * one.count * share
  return _from_squares(one.value + share * shift, squares, count)


def monte_carlo(function: Callable, sample: Callable, key, num: int, batch_size: int = 8192) -> Estimate:
  """E[function(x)] from `num` independent draws, `batch_size` in memory at a time.

  Args:
    function: `(x) -> values [N, ...]`.
    sample: `(key, N) -> x`, an array or a pytree with leading axes N.
    key: of all draws.
    num: how many; any positive number.
    batch_size: at most so many at once.
  """
  batch_key, last_key = jax.random.split(key)
  chunk = lambda key, size: estimate(function(sample(key, size)))
  full, left = divmod(num, batch_size)
  parts = []
  if full:
    first = jax.eval_shape(lambda: chunk(batch_key, batch_size))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
    add = lambda total, index: (merge(total, chunk(jax.random.fold_in(batch_key, index), batch_size)), None)
    parts += [jax.lax.scan(add, nothing, jnp.arange(full))[0]]
  if left:
    parts += [chunk(last_key, left)]
  return merge(*parts) if len(parts) == 2 else parts[0]


def _squares(some: Estimate):
  """The sum of squares about the mean."""
  known = some.count > 1
  stderr = jnp.where(known, some.stderr, 0.0)
  return stderr**2 * some.count * (some.count - 1.0)


def _from_squares(mean, squares, count) -> Estimate:
  known = count > 1
  variance = squares / jnp.maximum(count - 1.0, 1.0) / jnp.maximum(count, 1)
  return Estimate(mean, jnp.where(known, jnp.sqrt(jnp.where(known, variance, 1.0)), jnp.inf), count)


# Estimates of what has no closed form.  Log densities take x and return [N]; samplers take (key, N), as `monte_carlo` has them.


def estimate_entropy(log_prob: Callable, sample: Callable, key, num: int, batch_size: int = 8192) -> Estimate:
  """H(p) from a law's own draws and density."""
  return estimate_cross_entropy(sample, log_prob, key, num, batch_size)


def estimate_cross_entropy(sample: Callable, other_log_prob: Callable, key, num: int, batch_size: int = 8192) -> Estimate:
  """H(p, q) from draws of p, whose density need not be known.  With real data for p it is the test loss of q."""
  return monte_carlo(lambda x: -other_log_prob(x), sample, key, num, batch_size)


def estimate_kl(
  log_prob: Callable, sample: Callable, other_log_prob: Callable, key, num: int, batch_size: int = 8192
) -> Estimate:
  """KL(p || q) from draws of p.  Unbiased, and so at times below zero."""
  return monte_carlo(lambda x: log_prob(x) - other_log_prob(x), sample, key, num, batch_size)


def estimate_mutual_information(
  log_joint: Callable, log_first: Callable, log_second: Callable, sample: Callable, key, num: int, batch_size: int = 8192
) -> Estimate:
  """I(X; Y) from draws of pairs: `log_joint((x, y))`, the two marginals `log_first(x)` and `log_second(y)`."""
  pointwise = lambda pair: log_joint(pair) - log_first(pair[0]) - log_second(pair[1])
  return monte_carlo(pointwise, sample, key, num, batch_size)
