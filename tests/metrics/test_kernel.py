"""The kernel distance against enumeration of all samples, and against moments of Gaussians."""

import itertools
import math

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.metrics import kernel

RNG = np.random.default_rng(0)


def moment_tensors(points, weights):
  """E x, E x (x) x and E x (x) x (x) x of a law on finitely many points."""
  return [
    np.einsum("n,ni->i", weights, points),
    np.einsum("n,ni,nj->ij", weights, points, points),
    np.einsum("n,ni,nj,nk->ijk", weights, points, points, points),
  ]


def gaussian_tensors(mean, covariance):
  """The same of a Gaussian, by Isserlis' theorem."""
  pairs = np.einsum("i,jk->ijk", mean, covariance)
  third = np.einsum("i,j,k->ijk", mean, mean, mean) + pairs + pairs.transpose(1, 0, 2) + pairs.transpose(1, 2, 0)
  return [mean, np.outer(mean, mean) + covariance, third]


def truth(tensors, others) -> float:
  """MMD^2 under (x . y / D + 1)^3 = sum_k (3 over k) (x . y)^k / D^k: distances of moments."""
  dims = len(tensors[0])
  return sum(math.comb(3, k + 1) * np.square(a - b).sum() / dims ** (k + 1) for k, (a, b) in enumerate(zip(tensors, others)))


def test_it_is_unbiased_by_enumeration():
  """The mean over all samples of 3 and of 2, with their probabilities, of laws on 3 and 2 points of the plane."""
  points, others = RNG.normal(size=(3, 2)), RNG.normal(size=(2, 2))
  weights, other_weights = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.6])
  mean = 0.0
  for chosen in itertools.product(range(3), repeat=3):
    for other in itertools.product(range(2), repeat=2):
      probability = weights[list(chosen)].prod() * other_weights[list(other)].prod()
      mean += probability * kernel.unbiased(points[list(chosen)], others[list(other)])
  exact = truth(moment_tensors(points, weights), moment_tensors(others, other_weights))
  assert mean == pytest.approx(exact, rel=1e-10)


def test_it_is_the_mean_over_all_pairs():
  x, y = RNG.normal(size=(5, 4)), RNG.normal(size=(3, 4))
  k = lambda a, b: (a @ b / 4 + 1) ** 3
  own = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
  other = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
  assert kernel.unbiased(x, y) == pytest.approx(own + other - 2 * np.mean([k(a, b) for a in x for b in y]), rel=1e-12)
  assert kernel.unbiased(y, x) == pytest.approx(kernel.unbiased(x, y), rel=1e-12)


def test_samples_of_gaussians_come_to_the_distance_of_their_moments():
  mean, other = np.array([0.5, -1]), np.array([0.2, 0.4])
  a, b = np.array([[1, 0.5], [0.5, 2]]), np.array([[2, -0.3], [-0.3, 0.5]])
  exact = truth(gaussian_tensors(mean, a), gaussian_tensors(other, b))
  x, y = RNG.multivariate_normal(mean, a, 30_000), RNG.multivariate_normal(other, b, 30_000)
  found = kernel.distance(x, y, seed=0, block=500)
  assert found.num_blocks == 60
  assert found.stderr < 0.05 * exact
  assert abs(found.distance - exact) < 4 * found.stderr


def test_the_error_is_that_of_the_mean():
  """A hundred repetitions: their deviation is what each says of itself, and samples of one law differ by no more."""
  draws = RNG.normal(size=(100, 2, 400, 3))
  found = [kernel.distance(x, y, seed=0, block=20) for x, y in draws]
  distances, errors = np.array([one.distance for one in found]), np.array([one.stderr for one in found])
  assert distances.std() == pytest.approx(np.sqrt(np.square(errors).mean()), rel=0.25)
  assert abs(distances.mean()) < 4 * distances.std() / 10
  assert distances.min() < 0  # unbiased about zero


def test_blocks_share_no_example_and_leave_none_out():
  seen = []

  def spying(x, y):
    seen.append((x[:, 0].astype(int).tolist(), y[:, 0].astype(int).tolist()))
    return x @ y.T

  found = kernel.distance(np.arange(12.0)[:, None], np.arange(100.0, 114)[:, None], seed=1, block=4, kernel=spying)
  assert (found.num_blocks, found.block) == (3, 4)
  mine = [x for x, y in seen if x == y and x[0] < 100]
  theirs = [x for x, y in seen if x == y and x[0] >= 100]
  assert sorted(sum(mine, [])) == list(range(12))
  assert len(set(sum(theirs, []))) == 12  # of 14: what fills no block is left out
  assert sum(mine, []) != list(range(12))


def test_two_blocks_by_hand():
  """Blocks of equal examples are the same however they are dealt; the error is half the difference of two, here zero."""
  x, y = np.array([[2.0], [2], [2], [2]]), np.array([[1.0], [1], [1], [1]])
  assert kernel.distance(x, y, seed=0, block=2) == pytest.approx((5**3 + 2**3 - 2 * 3**3, 0, 2, 2))
  seen = []
  collecting = lambda x, y: seen.append(kernel.polynomial(x, y)) or seen[-1]
  found = kernel.distance(RNG.normal(size=(6, 2)), RNG.normal(size=(6, 2)), seed=0, block=3, kernel=collecting)
  mean_of_others = lambda k: (k.sum() - np.trace(k)) / 6
  first, second = (mean_of_others(k) + mean_of_others(m) - 2 * cross.mean() for k, m, cross in (seen[:3], seen[3:]))
  assert found.distance == pytest.approx((first + second) / 2)
  assert found.stderr == pytest.approx(abs(first - second) / 2)


@pytest.mark.parametrize(
  ("call", "said"),
  [
    (lambda: kernel.unbiased(np.array([[np.inf], [1]]), np.ones((2, 1))), "first in row 0"),
    (lambda: kernel.unbiased(np.ones((2, 1)), np.array([[1], [np.nan]])), "the reference: 1 of 2"),
    (lambda: kernel.unbiased(np.ones((2, 1)), np.ones((2, 3))), "1 and of 3"),
    (lambda: kernel.unbiased(np.ones((1, 3)), np.ones((2, 3))), "at least 2"),
    (lambda: kernel.distance(np.ones((5, 3)), np.ones((9, 3)), seed=0, block=3), "two blocks take 2 to 2"),
    (lambda: kernel.distance(np.ones((5, 3)), np.ones((9, 3)), seed=0, block=1), "two blocks take 2 to 2"),
  ],
)
def test_bad_input_is_told_in_one_line(call, said):
  with pytest.raises(UserError, match=said) as error:
    call()
  assert "\n" not in str(error.value)
