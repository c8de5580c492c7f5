"""Points and labels whose modes are known by construction, and draws of the laws themselves."""

import itertools
import math

import numpy as np
import pytest

from gm_jax.data import toys
from gm_jax.errors import UserError
from gm_jax.metrics import modes

GRID = np.array(list(itertools.product([-4.0, -2, 0, 2, 4], repeat=2)))
RING = 2 * np.stack([np.cos(np.arange(8) * math.pi / 4), np.sin(np.arange(8) * math.pi / 4)], 1)


def around(centre, *distances):
  """Points so many deviations of 0.05 away, each in a direction of its own."""
  angles = np.arange(len(distances)) + 0.3
  return np.asarray(centre)[None] + 0.05 * np.array(distances)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


def test_points_by_construction():
  points = np.concatenate([around(GRID[0], 0, 1, 2.99), around(GRID[7], 2.5), around(GRID[24], 3.01, 3.99, 4.01, 10)])
  found = modes.of_points(points, GRID, 0.05)
  counts = np.zeros(25, int)
  counts[[0, 7]] = 3, 1
  np.testing.assert_array_equal(found.counts, counts)
  assert (found.covered, found.high_quality) == (2, 4 / 8)
  assert found.reverse_kl == pytest.approx(0.75 * math.log(25 * 0.75) + 0.25 * math.log(25 * 0.25))

  wider = modes.of_points(points, GRID, 0.05, deviations=4)
  assert (wider.covered, wider.high_quality) == (3, 6 / 8)
  assert wider.counts[24] == 2
  assert modes.of_points(points, GRID, 0.05, least=2).covered == 1
  assert modes.of_points(points[:, None, None].astype(np.float32), GRID, 0.05).counts.tolist() == counts.tolist()


def test_a_point_near_two_modes_belongs_to_the_nearer():
  found = modes.of_points([[0.4], [0.6], [0.7]], [[0.0], [1.0]], 1.0)
  assert found.counts.tolist() == [1, 2]
  assert found.high_quality == 1


@pytest.mark.parametrize(("toy", "centres", "std"), [(toys.ring(), RING, 0.02), (toys.grid(), GRID, 0.05)])
def test_the_law_itself(toy, centres, std):
  points = toy.dataset(20_000, seed=0).arrays["image"]
  for deviations in (3, 4):
    found = modes.of_points(points, centres, std, deviations=deviations)
    assert found.covered == len(centres)
    good = 1 - math.exp(-(deviations**2) / 2)
    assert abs(found.high_quality - good) < 4 * math.sqrt(good * (1 - good) / 20_000)
    # 2 N KL is chi-squared with K - 1 degrees of freedom.
    degrees = len(centres) - 1
    assert abs(2 * 20_000 * found.reverse_kl - degrees) < 4 * math.sqrt(2 * degrees)


def test_collapse_of_some_kinds():
  one = modes.of_points(np.repeat(RING[:1], 10, axis=0), RING, 0.02)
  assert (one.covered, one.high_quality) == (1, 1)
  assert one.reverse_kl == pytest.approx(math.log(8))
  half = modes.of_points(RING[::2], RING, 0.02)
  assert half.covered == 4
  assert half.reverse_kl == pytest.approx(math.log(2))
  every = modes.of_points(RING, RING, 0.02)
  assert (every.covered, every.high_quality) == (8, 1)
  assert every.reverse_kl == pytest.approx(0, abs=1e-12)
  none = modes.of_points(np.zeros((5, 2)), RING, 0.02)
  assert (none.covered, none.high_quality, none.reverse_kl) == (0, 0, math.inf)


def test_labels_of_stacked_images():
  digits = np.array(list(itertools.product(range(10), repeat=3)))
  labels = modes.joint_labels(digits, 10)
  assert labels[123] == 123
  np.testing.assert_array_equal(labels, np.arange(1000))
  every = modes.of_labels(np.repeat(labels, 26), 1000)
  assert (every.covered, every.high_quality) == (1000, 1)
  assert every.reverse_kl == pytest.approx(0, abs=1e-12)
  half = modes.of_labels(labels[digits[:, 1] < 5], 1000)
  assert half.covered == 500
  assert half.reverse_kl == pytest.approx(math.log(2))


def test_labels_by_hand():
  found = modes.of_labels(np.array([2, 0, 2, 2], np.uint8), 4, least=2)
  assert found.covered == 1
  assert found.counts.tolist() == [1, 0, 3, 0]
  assert found.reverse_kl == pytest.approx(0.25 * math.log(1) + 0.75 * math.log(3))


@pytest.mark.parametrize(
  ("call", "said"),
  [
    (lambda: modes.of_points([[0.0, np.nan]], RING, 0.02), "first in row 0"),
    (lambda: modes.of_points(np.zeros((0, 2)), RING, 0.02), r"\[0, 2\]"),
    (lambda: modes.of_points(np.zeros(3), RING, 0.02), r"\[3\]"),
    (lambda: modes.of_points(np.zeros((3, 3)), RING, 0.02), "3 dimensions, and centres of 2"),
    (lambda: modes.of_points(RING, RING, 0.0), "positive"),
    (lambda: modes.of_points(RING, RING, 0.1, least=0), "at least 1"),
    (lambda: modes.of_labels([0, 4], 4), "modes 0 to 3"),
    (lambda: modes.of_labels([-1, 2], 4), "modes 0 to 3"),
    (lambda: modes.of_labels([0.5], 4), "integers"),
    (lambda: modes.of_labels([], 4), "integers"),
    (lambda: modes.joint_labels([[0, 10]], 10), "below 10"),
    (lambda: modes.joint_labels([0, 1], 10), r"\[N, P\]"),
  ],
)
def test_bad_input_is_told_in_one_line(call, said):
  with pytest.raises(UserError, match=said) as error:
    call()
  assert "\n" not in str(error.value)
