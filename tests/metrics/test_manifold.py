"""Neighbours counted by hand on a line and by loops elsewhere, and what is known of any continuous law."""

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.metrics import manifold

RNG = np.random.default_rng(0)
REAL = np.array([0.0, 1, 3, 6])[:, None]  # their first neighbours are 1, 1, 2 and 3 away
SAMPLES = np.array([-1, 2, 4.5, 20])[:, None]  # and these' 3, 2.5, 2.5 and 15.5


def test_on_a_line_by_hand():
  """-1 is on the rim of 0's ball and 2 on that of 1's, so that closed and open balls differ."""
  assert manifold.precision_recall(SAMPLES, REAL, k=1) == (3 / 4, 1)
  assert manifold.precision_recall(REAL, SAMPLES, k=1) == (1, 3 / 4)
  assert manifold.density_coverage(SAMPLES, REAL, k=1) == (3 / 4, 2 / 4)  # 2 in 3's ball; 4.5 in 3's and in 6's
  pairs = np.array([-30.0, -29, 2, 2.9])[:, None]
  assert manifold.precision_recall(pairs, REAL, k=1) == (2 / 4, 1 / 4)  # 3 is 0.1 from 2.9, whose ball goes from 2 to 3.8
  assert manifold.precision_recall(pairs[:2], REAL, k=1) == (0, 0)


def test_on_a_line_by_hand_with_two_neighbours():
  """The second neighbours of 0, 1, 3, 6 are 3, 2, 3 and 5 away: open balls (-3, 3), (-1, 3), (0, 6) and (1, 11)."""
  assert manifold.density_coverage(SAMPLES, REAL, k=2) == ((1 + 4 + 2 + 0) / (2 * 4), 1)
  assert manifold.precision_recall(SAMPLES, REAL, k=2).precision == 3 / 4


def loops(samples, real, k):
  """All four, by their definitions."""
  away = lambda a, b: float(np.linalg.norm(a - b))
  radius = lambda i, points: sorted(away(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]
  real_radii, radii = [radius(i, real) for i in range(len(real))], [radius(i, samples) for i in range(len(samples))]
  precision = np.mean([any(away(y, x) <= r for x, r in zip(real, real_radii)) for y in samples])
  recall = np.mean([any(away(y, x) <= r for y, r in zip(samples, radii)) for x in real])
  density = np.mean([sum(away(y, x) < r for x, r in zip(real, real_radii)) / k for y in samples])
  coverage = np.mean([any(away(y, x) < r for y in samples) for x, r in zip(real, real_radii)])
  return (precision, recall), (density, coverage)


@pytest.mark.parametrize("k", [1, 4])
def test_against_loops_at_any_tile(k):
  samples, real = 0.7 * RNG.normal(size=(23, 3)) + 1, RNG.normal(size=(31, 3))
  fidelity, density = loops(samples, real, k)
  assert 0 < min(fidelity) < max(*fidelity, density[1]) < 1
  for tile in (1, 7, 31, 100):
    assert manifold.precision_recall(samples, real, k, tile) == pytest.approx(fidelity)
    assert manifold.density_coverage(samples, real, k, tile) == pytest.approx(density)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_set_against_itself(dtype):
  x = (100 + RNG.normal(size=(150, 9))).astype(dtype)
  for k, tile in [(1, 64), (3, 2048), (5, 150)]:
    assert manifold.precision_recall(x, x.copy(), k, tile) == (1, 1)
    assert manifold.density_coverage(x, x.copy(), k, tile) == (1, 1)


def test_balls_of_repeated_points_are_those_points():
  """Closed, they hold nothing but copies; open, not even these."""
  x = RNG.normal(size=(70, 9))
  twice = np.repeat(x, 2, axis=0)
  assert manifold.precision_recall(x, twice, 1) == (1, 1)
  assert manifold.precision_recall(x + 1e-5, twice, 1).precision == 0
  assert manifold.density_coverage(x, twice, 1) == (0, 0)


def test_what_all_points_have_in_common_does_not_matter():
  samples, real = RNG.normal(size=(40, 5)), RNG.normal(size=(50, 5))
  rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
  for measure in (manifold.precision_recall, manifold.density_coverage):
    moved = measure(1e6 + 3 * samples @ rotation, 1e6 + 3 * real @ rotation, 2)
    assert moved == pytest.approx(measure(samples, real, 2))


def test_sets_apart_share_nothing():
  x = RNG.normal(size=(60, 4))
  assert manifold.precision_recall(x + 100, x) == (0, 0)
  assert manifold.density_coverage(x + 100, x) == (0, 0)


@pytest.mark.parametrize(("num", "num_reference", "k"), [(30, 30, 3), (10, 40, 5), (40, 15, 1)])
def test_samples_of_the_law_itself(num, num_reference, k):
  """On average their density is 1, and their coverage what counting orders gives: in two dimensions as in any."""
  draws = [manifold.density_coverage(RNG.normal(size=(num, 2)), RNG.normal(size=(num_reference, 2)), k) for _ in range(400)]
  mean, error = np.mean(draws, 0), np.std(draws, 0) / 20
  assert error.max() < 0.02
  assert abs(mean[0] - 1) < 4 * error[0]
  assert abs(mean[1] - manifold.expected_coverage(num, num_reference, k)) < 4 * error[1]


def test_expected_coverage_by_hand():
  """One neighbour: the nearest of N - 1 + M others is one of the M.  Many points: 1 - (N / (N + M))^k."""
  assert manifold.expected_coverage(3, 5, 1) == pytest.approx(3 / 7)
  assert manifold.expected_coverage(3, 5, 2) == pytest.approx(1 - (4 * 3) / (7 * 6))
  assert manifold.expected_coverage(10**6, 10**6, 5) == pytest.approx(1 - 2.0**-5, abs=1e-5)


def test_a_mode_dropped_costs_recall_and_one_invented_costs_precision():
  modes = 50 * np.eye(5)
  draw = lambda count: np.repeat(modes[:count], 40, axis=0) + RNG.normal(size=(40 * count, 5))
  dropped, real = draw(4), draw(5)
  full = manifold.precision_recall(draw(5), real)
  precision, recall = manifold.precision_recall(dropped, real)
  assert abs(precision - full.precision) < 0.1
  assert recall == pytest.approx(0.8 * full.recall, abs=0.1)
  density, coverage = manifold.density_coverage(dropped, real)
  assert density == pytest.approx(1, abs=0.2)
  assert coverage == pytest.approx(0.8 * manifold.expected_coverage(40, 40), abs=0.05)
  invented = manifold.precision_recall(real, dropped)
  assert invented == (recall, precision)


def test_an_outlier_makes_precision_large_and_density_hardly():
  real, samples = RNG.normal(size=(100, 2)), 8 + RNG.normal(size=(100, 2))
  assert manifold.precision_recall(samples, real).precision < 0.05
  with_outlier = np.concatenate([real, [[20, 20]]])
  assert manifold.precision_recall(samples, with_outlier).precision > 0.95
  assert manifold.density_coverage(samples, with_outlier).density < 0.25


@pytest.mark.parametrize("measure", [manifold.precision_recall, manifold.density_coverage])
@pytest.mark.parametrize(
  ("samples", "reference", "k", "said"),
  [
    (np.array([[np.nan], [0], [1]]), REAL, 1, "features: 1 of 3 numbers are not finite, the first in row 0"),
    (SAMPLES, np.array([[0], [1], [np.inf]]), 1, "the reference: 1 of 3"),
    (np.zeros((4, 2)), REAL, 1, "2 and of 1"),
    (SAMPLES, REAL, 4, "take 1 to 3"),
    (SAMPLES, REAL, 0, "take 1 to 3"),
    (SAMPLES[:, 0], REAL, 1, r"\[4\]"),
  ],
)
def test_bad_input_is_told_in_one_line(measure, samples, reference, k, said):
  with pytest.raises(UserError, match=said) as error:
    measure(samples, reference, k)
  assert "\n" not in str(error.value)
