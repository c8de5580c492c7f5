"""Toy laws: densities that integrate to one, and samples that follow them."""

import numpy as np
import pytest
import scipy.stats

from gm_jax import data
from gm_jax.data.toys import Toy, gaussian_mixture

SKEWED = gaussian_mixture(
  means=[[0.0, 1.0], [-1.5, -0.5], [1.0, -1.0]],
  covariances=[[[0.3, 0.2], [0.2, 0.4]], [[0.1, -0.05], [-0.05, 0.3]], [[0.2, 0.0], [0.0, 0.05]]],
  weights=[3, 2, 1],
)
# law, half width of a square that holds it, points per axis (closer than the smallest width; centred on the squares)
LAWS = {
  "ring": (data.toys.ring(), 2.2, 352),
  "grid": (data.toys.grid(), 4.4, 288),
  "two_moons": (data.toys.two_moons(), 3.0, 160),
  "checkerboard": (data.toys.checkerboard(), 5.0, 160),
  "mixture": (SKEWED, 4.8, 160),
}
CELLS = 16  # per axis, for counting


@pytest.fixture(params=LAWS)
def law(request) -> tuple[Toy, np.ndarray, np.ndarray, float]:
  """The law, quadrature points, their masses, and the half width."""
  toy, half, ticks = LAWS[request.param]
  axis = (np.arange(ticks) + 0.5) * 2 * half / ticks - half
  points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
  return toy, points, np.exp(toy.log_prob(points)) * (2 * half / ticks) ** 2, half


def test_density_integrates_to_one(law):
  _, _, masses, _ = law
  assert abs(masses.sum() - 1) < 1e-5


def test_samples_follow_the_density(law):
  """Counts per cell against masses per cell (chi-square), and the mean log density against the entropy."""
  toy, points, masses, half = law
  sample = toy.dataset(20_000, seed=0).arrays["image"].reshape(-1, 2).astype(np.float64)
  # Cells are rotated by an irrational angle and shifted, so that none of their borders runs along a law's own symmetry.
  turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
  cell_of = lambda x: (np.floor((x @ turn / half + 2.03) * CELLS / 4).astype(int) * [CELLS, 1]).sum(-1)
  expected = np.bincount(cell_of(points), masses, CELLS**2) * len(sample)
  counted = np.bincount(cell_of(sample), minlength=CELLS**2)
  large = expected >= 20
  expected, counted = np.append(expected[large], expected[~large].sum()), np.append(counted[large], counted[~large].sum())
  statistic = ((counted - expected) ** 2 / np.maximum(expected, 1)).sum()
  assert statistic < scipy.stats.chi2.isf(1e-6, len(expected))
  with np.errstate(divide="ignore", invalid="ignore"):
    logs = np.where(masses > 0, toy.log_prob(points), 0)
  log_probs = toy.log_prob(sample)
  assert abs(log_probs.mean() - (masses * logs).sum()) < 4 * log_probs.std() / np.sqrt(len(sample)) + 1e-5


def test_mixture_density_is_that_of_scipy():
  points = np.random.default_rng(0).normal(size=(100, 2)) * 2
  parts = [
    ([0.0, 1.0], [[0.3, 0.2], [0.2, 0.4]], 3),
    ([-1.5, -0.5], [[0.1, -0.05], [-0.05, 0.3]], 2),
    ([1.0, -1.0], [[0.2, 0], [0, 0.05]], 1),
  ]
  density = sum(weight / 6 * scipy.stats.multivariate_normal(mean, cov).pdf(points) for mean, cov, weight in parts)
  np.testing.assert_allclose(SKEWED.log_prob(points), np.log(density), rtol=1e-9)


def test_mixture_on_a_line_is_that_of_scipy():
  law = gaussian_mixture([[-1.0], [2.0]], [[[0.25]], [[4.0]]], weights=[1, 3])
  x = np.linspace(-8, 9, 50)
  density = 0.25 * scipy.stats.norm(-1, 0.5).pdf(x) + 0.75 * scipy.stats.norm(2, 2).pdf(x)
  np.testing.assert_allclose(law.log_prob(x[:, None]), np.log(density), rtol=1e-9)
  drawn = law.dataset(20_000, seed=0).arrays["image"]
  assert drawn.shape == (20_000, 1, 1, 1)
  assert abs(drawn.mean() - 1.25) < 4 * drawn.std() / np.sqrt(20_000)


def test_density_far_away_is_finite():
  for toy in (data.toys.ring(), data.toys.two_moons(), SKEWED):
    assert np.isfinite(toy.log_prob([[100.0, -100.0]])).all()


def test_labels_name_the_mode():
  dataset = data.toys.ring().dataset(1000, seed=0)
  points = dataset.arrays["image"].reshape(-1, 2)
  angles = 2 * np.pi * dataset.arrays["label"] / 8
  assert np.abs(points - 2 * np.stack([np.cos(angles), np.sin(angles)], -1)).max() < 6 * 0.02


def test_splits_and_seeds_are_independent_and_repeatable():
  toy = data.toys.two_moons()
  image = lambda seed, split: toy.dataset(50, seed, split).arrays["image"]
  np.testing.assert_array_equal(image(0, "train"), image(0, "train"))
  assert not np.isclose(image(0, "train"), image(0, "test")).any()
  assert not np.isclose(image(0, "train"), image(1, "train")).any()
