"""Are the samples good, and are they all there?  Fidelity and diversity apart, by neighbours in a space of features.

A set of points stands for the union of balls around them, each reaching its point's k-th nearest neighbour within the set.

  precision, recall    share of samples in the balls of real points, of real points in the balls of samples (Kynkaanniemi et al.
                       2019, https://arxiv.org/abs/1904.06991)
  density, coverage    how many balls of real points a sample lies in, over k; share of real balls that hold a sample (Naeem et
                       al. 2020, https://arxiv.org/abs/2002.09797)

An outlier has a large ball.  One real outlier makes precision large, and one among samples makes recall large; density counts
balls, so that one hardly matters, and coverage needs no balls around samples.  All four depend on the numbers of points:
compare at equal ones.  Distances are Euclidean, in float64, a tile at a time.
"""

from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError
from gm_jax.metrics.frechet import checked


class PrecisionRecall(NamedTuple):
  """Each between 0 and 1."""

  precision: float
  recall: float


class DensityCoverage(NamedTuple):
  """Density is at least 0 and about 1 for equal laws; coverage is between 0 and 1."""

  density: float
  coverage: float


def precision_recall(features, reference, k: int = 3, tile: int = 2048) -> PrecisionRecall:
  """Improved precision and recall; balls are closed.

  Args:
    features: of the samples, [M, D].
    reference: real ones, [N, D].
    k: which neighbour a ball reaches, the point itself not counted; less than N and M.
    tile: of distances held at once, [tile, tile] (and their bounds, [N, k]).
  """
  samples, real = _sets(features, reference, k)
  precise = _within(real, samples, _squared_radii(real, k, tile), tile, closed=True).points > 0
  recalled = _within(samples, real, _squared_radii(samples, k, tile), tile, closed=True).points > 0
  return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(features, reference, k: int = 5, tile: int = 2048) -> DensityCoverage:
  """Density and coverage; balls are open, so that a set has density 1 against itself.  Arguments as in `precision_recall`."""
  samples, real = _sets(features, reference, k)
  counts = _within(real, samples, _squared_radii(real, k, tile), tile, closed=False)
  return DensityCoverage(float(counts.points.sum() / (k * len(samples))), float((counts.balls > 0).mean()))


def expected_coverage(num: int, num_reference: int, k: int = 5) -> float:
  """The mean coverage of `num` samples of the real law itself, whatever it is, if it is continuous.

  A ball holds no sample if the k nearest of all num_reference - 1 + num other points are real (Naeem et al. 2020, lemma 2).
  """
  others = num_reference - 1 - np.arange(k)
  return float(1 - np.prod(others / (others + num)))


class _Counts(NamedTuple):
  balls: np.ndarray  # int [N], points in each ball
  points: np.ndarray  # int [M], balls around each point


def _within(centres, points, squared_radii, tile: int, closed: bool) -> _Counts:
  inside = np.less_equal if closed else np.less
  counts = _Counts(np.zeros(len(centres), int), np.zeros(len(points), int))
  for rows, columns, squared in _tiles(centres, points, tile):
    hits = inside(squared, squared_radii[rows, None])
    counts.balls[rows] += hits.sum(1)
    counts.points[columns] += hits.sum(0)
  return counts


def _squared_radii(points, k: int, tile: int) -> np.ndarray:
  """The squared distance of each point [N, D] to its k-th nearest other, float64 [N]."""
  nearest = np.full((len(points), k), np.inf)
  for rows, columns, squared in _tiles(points, points, tile):
    if rows == columns:
      np.fill_diagonal(squared, np.inf)  # no point is its own neighbour
    nearest[rows] = np.partition(np.concatenate([nearest[rows], squared], 1), k - 1, axis=1)[:, :k]
  return nearest.max(1)


def _tiles(x, y, tile: int):
  """Yields (rows, columns, squared distances [tile, tile]) of all pairs of x [N, D] and y [M, D].

  A set and a copy of it give the same bits, tile for tile: whoever lies on the rim of a ball lies there in both.
  """
  for first in range(0, len(x), tile):
    rows = slice(first, min(first + tile, len(x)))
    a = x[rows]
    for start in range(0, len(y), tile):
      columns = slice(start, min(start + tile, len(y)))
      b = y[columns].copy()  # a product of a matrix with its own transpose is another routine, of other rounding
      squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None]
      yield rows, columns, squares - 2 * (a @ b.T)


def _sets(features, reference, k: int):
  """Both sets in float64, around a real point: squares of what all have in common would cost digits."""
  samples, real = checked(features), checked(reference, "the reference")
  if samples.shape[1] != real.shape[1]:
    raise UserError(f"features of {samples.shape[1]} and of {real.shape[1]} dimensions cannot be compared")
  if not 1 <= k < min(len(samples), len(real)):
    raise UserError(f"neighbour {k} of sets of {len(samples)} and {len(real)}; take 1 to {min(len(samples), len(real)) - 1}")
  origin = real[:1].astype(np.float64)
  return samples - origin, real - origin
