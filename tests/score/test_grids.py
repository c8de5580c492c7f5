"""Grids: they rise and tile, visit the times that their papers name, and refuse what no sampler can follow."""

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.score import grids, noise
from gm_jax.score.noise import alpha, ratio, sigma
from gm_jax.score.solvers import DDIM, Ancestral

DDPM = noise.discrete(noise.linear_betas())
COUNTS = [1, 2, 3, 7, 50, 333, 999, 1000]


def visited(grid):
  """The whole-number times of a table's grid."""
  return 1000 * DDPM.time(grid[:-1])


GRIDS = {
  "in time": lambda n: grids.in_time(noise.cosine(), n),
  "all of time": lambda n: grids.in_time(noise.straight(), n),
  "in log SNR": lambda n: grids.in_log_snr(9, -9, n),
  "Karras": grids.karras,
  "trailing": lambda n: grids.trailing(DDPM, n),
  "leading": lambda n: grids.leading(DDPM, n),
  "linspace": lambda n: grids.linspace(DDPM, n),
  "quadratic": lambda n: grids.quadratic(DDPM, n),
}


@pytest.mark.parametrize("make", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("count", COUNTS)
def test_steps_tile(make, count):
  """N steps, each from where the last one ended: along a grid all that a solver keeps of x telescopes."""
  grid = make(count)
  assert len(grid) == count + 1
  assert grid.dtype == np.float64
  assert np.all(np.diff(grid) > 0)
  assert grid[-1] == np.inf
  np.testing.assert_array_equal(DDIM()(grid).log_snr, grid[:-1])
  kept = DDIM()(grid[:-1]).weights[:, 0, 0] if count > 1 else np.ones(1)
  np.testing.assert_allclose(np.prod(kept), sigma(grid[-2]) / sigma(grid[0]), rtol=1e-9)
  if grid[0] > -np.inf and count > 1:
    kept = Ancestral()(grid[:-1]).weights[:, 0, 0]
    expected = alpha(grid[0]) / alpha(grid[-2]) * (sigma(grid[-2]) / sigma(grid[0])) ** 2
    np.testing.assert_allclose(np.prod(kept), expected, rtol=1e-9)


@pytest.mark.parametrize("count", COUNTS)
def test_times_of_tables(count):
  """Whole numbers from 1 to T, as the papers space them."""
  steps = np.arange(count)
  trailing, leading, even, squares = (
    visited(make(DDPM, count)) for make in (grids.trailing, grids.leading, grids.linspace, grids.quadratic)
  )
  for times in (trailing, leading, even, squares):
    np.testing.assert_allclose(times, np.round(times), atol=1e-7)
    assert times.min() > 0.5
    assert times.max() < 1000.5
  np.testing.assert_allclose(trailing, 1000 - steps * 1000 / count, atol=0.5 + 1e-6)
  assert round(trailing[0]) == 1000
  np.testing.assert_allclose(leading[::-1], 1 + steps * (1000 // count), atol=1e-6)
  np.testing.assert_allclose(even, np.linspace(1000, 1, count), atol=0.5 + 1e-6)
  if count > 1:
    assert (round(even[0]), round(even[-1])) == (1000, 1)
  if 1 < count <= 50:
    # Near 0 whole squares meet and are moved apart; from where they are a step apart they are the paper's.
    expected = np.floor(np.linspace(0, np.sqrt(800), count) ** 2) + 1
    np.testing.assert_allclose(squares[::-1], np.maximum(expected, 1 + steps), atol=1 + 1e-6)
    assert 800 <= round(squares[0]) <= 801


def test_even_grids_are_even_in_what_they_say():
  np.testing.assert_allclose(np.diff(grids.in_log_snr(8, -6, 8)[:-1]), 2.0)
  np.testing.assert_allclose(grids.in_log_snr(8, -6, 7, last=None), np.linspace(-6, 8, 8))
  np.testing.assert_allclose(grids.in_log_snr(8, -6, 1), [-6, np.inf])
  schedule = noise.linear()
  np.testing.assert_allclose(schedule.time(grids.in_time(schedule, 5)[:-1]), [1, 0.8, 0.6, 0.4, 0.2], rtol=1e-9)
  assert grids.in_time(schedule, 5, last=12.0)[-1] == 12
  assert grids.in_time(noise.straight(), 4)[0] == -np.inf


@pytest.mark.parametrize("last", [np.inf, None])
def test_karras_levels(last):
  """Equation 5 for i < N; then the image, or nothing more."""
  grid = grids.karras(18, 0.01, 50.0, 5.0, last)
  levels = ratio(grid if last is None else grid[:-1])
  steps = np.linspace(0, 1, len(levels))
  np.testing.assert_allclose(levels ** (1 / 5), 50 ** (1 / 5) + steps * (0.01 ** (1 / 5) - 50 ** (1 / 5)), rtol=1e-12)
  np.testing.assert_allclose(levels[[0, -1]], [50, 0.01], rtol=1e-12)
  assert len(grid) == 19
  np.testing.assert_allclose(ratio(grids.karras(1)[0]), 80)


def test_refusals():
  for make in (
    lambda: grids.in_time(noise.linear(), 0),
    lambda: grids.in_log_snr(1, -1, 0),
    lambda: grids.in_log_snr(-1, 1, 5),
    lambda: grids.karras(0),
    lambda: grids.trailing(noise.linear(), 5),  # no table
    *(
      lambda make=make, n=n: make(DDPM, n)
      for make in (grids.trailing, grids.leading, grids.linspace, grids.quadratic)
      for n in (0, 1001)
    ),
    *(lambda grid=grid: grids.checked(grid) for grid in ([], [1.0], [1.0, 1.0], [2.0, 1.0], [0.0, np.nan], [[0.0, 1.0]], 3.0)),
    lambda: grids.checked([0.0, np.inf, np.inf]),
  ):
    with pytest.raises(UserError):
      make()
