"""The Frechet distance against closed forms, singular ones too, and moments against those of the whole."""

import numpy as np
import pytest
import scipy.linalg

from gm_jax.errors import UserError
from gm_jax.metrics import frechet

RNG = np.random.default_rng(0)


def covariance(dims: int, rank: int | None = None) -> np.ndarray:
  factor = RNG.normal(size=(dims, rank or dims))
  return factor @ factor.T


def of_features(x, y) -> float:
  return frechet.distance(frechet.moments(x), frechet.moments(y))


def test_covariances_with_common_axes_have_a_closed_form():
  """Along each axis the roots of the variances differ."""
  axes = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
  a, b = np.array([4.0, 1, 9, 0, 0.25]), np.array([1.0, 1, 0, 0, 25])
  mean, other = RNG.normal(size=(2, 5))
  found = frechet.between(mean, axes * a @ axes.T, other, axes * b @ axes.T)
  truth = np.square(mean - other).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
  assert found == pytest.approx(truth, abs=1e-7)  # zero variances are roots of rounding


def test_covariances_of_other_axes_agree_with_the_matrix_root():
  zero = np.zeros(6)
  for _ in range(5):
    a, b = covariance(6), covariance(6)
    assert np.abs(a @ b - b @ a).max() > 1
    truth = np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet.between(zero, a, zero, b) == pytest.approx(truth, rel=1e-9)


def test_singular_covariances():
  """Of rank one, S = u u^T: |u|^2 + |v|^2 - 2 |u . v|.  Of none: the trace of the other."""
  u, v, zero = *RNG.normal(size=(2, 30)), np.zeros(30)
  truth = u @ u + v @ v - 2 * abs(u @ v)
  assert frechet.between(zero, np.outer(u, u), zero, np.outer(v, v)) == pytest.approx(truth, rel=1e-9)
  assert frechet.between(zero, np.outer(u, u), zero, np.zeros((30, 30))) == pytest.approx(u @ u, rel=1e-12)
  assert frechet.between(zero, np.zeros((30, 30)), zero + 2, np.zeros((30, 30))) == pytest.approx(120)


def test_fewer_examples_than_dimensions():
  """tr (S S')^(1/2) is the sum of the singular values of X X'^T / (N - 1), of centred features, and needs no covariance."""
  x, y = RNG.normal(size=(7, 40)), 2 * RNG.normal(size=(9, 40)) + 1
  centred = [(a - a.mean(0)) / np.sqrt(len(a) - 1) for a in (x, y)]
  common = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
  truth = np.square(x.mean(0) - y.mean(0)).sum() + sum(np.square(a).sum() for a in centred) - 2 * common
  assert of_features(x, y) == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("shape", [(7, 200), (500, 12)])
def test_equal_sets_are_at_zero_and_shifted_ones_at_the_square(shape):
  x = RNG.normal(size=shape) * np.geomspace(1e-4, 10, shape[1])[None]
  scale = x.var(0).sum()
  assert 0 <= of_features(x, x) < 1e-10 * scale
  assert of_features(x, x[::-1]) < 1e-10 * scale
  shift = RNG.normal(size=shape[1])
  assert of_features(x, x + shift[None]) == pytest.approx(shift @ shift, abs=1e-7 * scale)


def test_rotations_and_shifts_of_both_change_nothing_and_scales_count_twice():
  x, y = RNG.normal(size=(50, 8)), RNG.uniform(size=(60, 8)) @ RNG.normal(size=(8, 8))
  plain = of_features(x, y)
  rotation, shift = np.linalg.qr(RNG.normal(size=(8, 8)))[0], 100 * RNG.normal(size=(1, 8))
  assert of_features(x @ rotation + shift, y @ rotation + shift) == pytest.approx(plain, rel=1e-9)
  assert of_features(3 * x, 3 * y) == pytest.approx(9 * plain, rel=1e-9)
  assert of_features(y, x) == pytest.approx(plain, rel=1e-9)


def test_samples_of_gaussians_come_near_the_distance_of_the_gaussians():
  mean, a, b = np.array([1.0, -1, 0.5]), covariance(3), covariance(3)
  x = RNG.multivariate_normal(np.zeros(3), a, 40_000)
  y = RNG.multivariate_normal(mean, b, 40_000)
  assert of_features(x, y) == pytest.approx(frechet.between(np.zeros(3), a, mean, b), rel=0.03)


def test_moments_are_unbiased_and_of_the_whole_whatever_the_batches():
  x = (1e6 + RNG.normal(size=(101, 4))).astype(np.float64)
  whole = frechet.moments(x)
  np.testing.assert_allclose(whole.covariance, np.cov(x.T), rtol=1e-9, atol=1e-12)
  for cuts in ([50], [1, 2, 90], list(range(1, 101))):
    pieces = frechet.accumulate(np.split(x, cuts))
    assert pieces.count == 101
    np.testing.assert_allclose(pieces.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(pieces.covariance, np.cov(x.T), rtol=1e-7, atol=1e-9)


def test_float32_features_are_summed_in_float64():
  x = (1000 + RNG.normal(size=(2000, 3))).astype(np.float32)
  np.testing.assert_allclose(frechet.moments(x).covariance, np.cov(x.astype(np.float64).T), rtol=1e-9, atol=1e-12)


def test_extrapolation_takes_the_bias_away():
  """Samples of the reference's own law, 16-dimensional: all of the distance is bias."""
  reference = frechet.Moments(10**9, np.zeros(16), (10**9 - 1) * np.eye(16))
  plain, taken = [], []
  for seed in range(10):
    x = np.random.default_rng(seed).normal(size=(600, 16))
    found = frechet.extrapolated(x, reference, seed=seed)
    assert found.sizes[0] == 60
    assert found.distances[-1] == pytest.approx(frechet.distance(frechet.moments(x), reference), rel=1e-9)
    assert found.slope > 0
    plain.append(found.distances[-1])
    taken.append(found.distance)
  assert np.mean(plain) > 0.1  # 16 / N from the mean, and 16 * 17 / 4N from the covariance: 0.14
  assert abs(np.mean(taken)) < 0.3 * np.mean(plain)


def test_extrapolation_is_the_line_through_its_points():
  x = RNG.normal(size=(100, 2))
  found = frechet.extrapolated(x, frechet.moments(x), seed=3, sizes=[20, 100])
  slope = (found.distances[0] - found.distances[1]) / (1 / 20 - 1 / 100)
  assert found.slope == pytest.approx(slope)
  assert found.distance == pytest.approx(found.distances[1] - slope / 100)


BROKEN = RNG.normal(size=(4, 2))
BROKEN[2, 1] = np.nan


@pytest.mark.parametrize(
  ("call", "said"),
  [
    (lambda: frechet.moments(BROKEN), "first in row 2"),
    (lambda: frechet.moments(np.zeros((3, 2, 2))), r"\[3, 2, 2\]"),
    (lambda: frechet.moments(np.zeros((0, 2))), r"\[0, 2\]"),
    (lambda: frechet.moments([["a", "b"]]), "real numbers"),
    (lambda: frechet.accumulate([]), "no batches"),
    (lambda: frechet.accumulate([np.zeros((2, 3)), np.zeros((2, 4))]), "3 and of 4"),
    (lambda: of_features(np.zeros((2, 3)), np.zeros((2, 4))), "do not go together"),
    (lambda: of_features(np.zeros((1, 3)), np.zeros((2, 3))), "at least 2 examples"),
    (lambda: frechet.between(np.zeros(2), np.diag([1.0, -0.1]), np.zeros(2), np.eye(2)), "-0.1"),
    (lambda: frechet.between(np.zeros(2), [[1.0, 0.5], [0, 1]], np.zeros(2), np.eye(2)), "symmetric"),
    (lambda: frechet.extrapolated(np.eye(5), frechet.moments(np.eye(5)), seed=0, sizes=[5, 5]), "two different"),
    (lambda: frechet.extrapolated(np.eye(5), frechet.moments(np.eye(5)), seed=0, sizes=[3, 6]), "from 2 to 5"),
  ],
)
def test_bad_input_is_told_in_one_line(call, said):
  with pytest.raises(UserError, match=said) as error:
    call()
  assert "\n" not in str(error.value)
