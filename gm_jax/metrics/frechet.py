"""How far apart are two sets of features, as Gaussians?  The Frechet distance (Heusel et al. 2017, https://arxiv.org/abs/1706.08500).

    d = |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))

of means m and covariances S: the squared 2-Wasserstein distance of the two Gaussians, in squared units of the features.  It is
called FID where the features are Inception's (`metrics.inception`) and nowhere else; of any other features it is a Frechet
distance, named with its network.

It is biased upwards, by about c / N for N samples, where c depends on the model: compare at equal N only, or take N to infinity
(`extrapolated`).  All is float64 on the host, and nothing is added to a covariance that is singular.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError


class Moments(NamedTuple):
  """All that the distance needs of features [N, D]."""

  count: int
  mean: np.ndarray  # float64 [D]
  scatter: np.ndarray  # float64 [D, D], the sum of (x - mean)(x - mean)^T

  @property
  def covariance(self) -> np.ndarray:
    """The unbiased one, float64 [D, D]."""
    if self.count < 2:
      raise UserError(f"a covariance takes at least 2 examples, not {self.count}")
    return self.scatter / (self.count - 1)


def moments(features) -> Moments:
  """Of features [N, D], N at least 1."""
  x = checked(features).astype(np.float64)
  mean = x.mean(0)
  return Moments(len(x), mean, (x - mean).T @ (x - mean))


def merge(a: Moments, b: Moments) -> Moments:
  """Of both sets together, as if they had been one (Chan et al. 1979)."""
  if a.mean.shape != b.mean.shape:
    raise UserError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")
  count, step = a.count + b.count, b.mean - a.mean
  scatter = a.scatter + b.scatter + np.outer(step, step) * (a.count * b.count / count)
  return Moments(count, a.mean + step * (b.count / count), scatter)


def accumulate(batches: Iterable) -> Moments:
  """Of all batches [B, D] together, of which only one is held at a time; B may differ."""
  total = None
  for batch in batches:
    total = moments(batch) if total is None else merge(total, moments(batch))
  if total is None:
    raise UserError("there are no batches; the moments of features take at least one")
  return total


def distance(a: Moments, b: Moments) -> float:
  """Between the Gaussians with these moments; zero for equal ones, and symmetric."""
  return between(a.mean, a.covariance, b.mean, b.covariance)


def between(mean, covariance, other_mean, other_covariance) -> float:
  """Between Gaussians of means [D] and covariances [D, D], which may be singular.

  The trace of (S S')^(1/2) is that of (F^T S' F)^(1/2), S = F F^T, which is symmetric.  Its eigenvalues are squares of the
  singular values of F^T F', which keep the digits that squares lose.
  """
  mean, other_mean = (checked(array, "a mean", 1).astype(np.float64) for array in (mean, other_mean))
  covariance, other_covariance = (checked(array, "a covariance").astype(np.float64) for array in (covariance, other_covariance))
  shapes = {(len(mean),) * 2, (len(other_mean),) * 2, covariance.shape, other_covariance.shape}
  if len(shapes) > 1:
    means, covariances = f"{len(mean)} and {len(other_mean)}", f"{covariance.shape} and {other_covariance.shape}"
    raise UserError(f"means of {means} dimensions and covariances of shapes {covariances} do not go together")
  factor, other_factor = _factor(covariance), _factor(other_covariance)
  common = np.linalg.svd(factor.T @ other_factor, compute_uv=False).sum() if factor.size and other_factor.size else 0.0
  spread = np.trace(covariance) + np.trace(other_covariance) - 2 * common
  # Below zero by rounding alone.
  return float(np.square(mean - other_mean).sum() + max(spread, 0.0))


class Extrapolation(NamedTuple):
  """A line through distances at several numbers of samples."""

  distance: float  # where 1 / N is zero; noise may take it below zero
  slope: float  # of the distance along 1 / N
  sizes: np.ndarray  # int [P]
  distances: np.ndarray  # float64 [P]


def extrapolated(features, reference: Moments, *, seed: int, sizes=None) -> Extrapolation:
  """The distance that infinitely many samples would have (Chong & Forsyth 2020, https://arxiv.org/abs/1911.07023).

  The bias of N samples falls as 1 / N, so a line through distances against 1 / N meets zero at the unbiased one.  Only the
  bias of these samples is taken away; that of the reference stays, the same for every model that is held against it.

  Args:
    features: of the samples, [N, D].
    reference: moments of the real features.
    seed: of the choice of subsets, each drawn without replacement.
    sizes: numbers of samples, at least two different ones from 2 to N; 15 from N / 10 to N, evenly spaced, unless given.
  """
  features = checked(features)
  if sizes is None:
    sizes = np.linspace(max(len(features) / 10, 2), len(features), 15)
  sizes = np.asarray(sizes).astype(int)
  if len(np.unique(sizes)) < 2 or sizes.min() < 2 or sizes.max() > len(features):
    raise UserError(f"{sizes.tolist()} are the sizes; take at least two different ones from 2 to {len(features)}, the samples")
  generator = np.random.default_rng(seed)
  subsets = (features[generator.choice(len(features), size, replace=False)] for size in sizes)
  distances = np.array([distance(moments(subset), reference) for subset in subsets])
  slope, at_infinity = np.polyfit(1 / sizes, distances, 1)
  return Extrapolation(float(at_infinity), float(slope), sizes, distances)


def checked(array, name: str = "features", num_axes: int = 2) -> np.ndarray:
  """Finite numbers with so many axes, none of them empty: float32 or float64 as they came, anything else float64.

  Raises:
    UserError: says what was given instead.
  """
  found = np.asarray(array)
  if found.ndim != num_axes or 0 in found.shape or found.dtype.kind not in "biuf":
    raise UserError(f"{name}: {found.dtype} of shape {list(found.shape)}; real numbers with {num_axes} axes are needed")
  if found.dtype not in (np.float32, np.float64):
    found = found.astype(np.float64)
  finite = np.isfinite(found)
  if not finite.all():
    row = int(np.argwhere(~finite)[0, 0])
    raise UserError(f"{name}: {(~finite).sum()} of {found.size} numbers are not finite, the first in row {row}")
  return found


def _factor(covariance) -> np.ndarray:
  """F [D, rank] with F F^T = the covariance; eigenvalues that are nothing but rounding are left out."""
  values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
  rounding = len(values) * np.finfo(np.float64).eps * np.abs(values).max()
  if values.min() < -100 * rounding or not np.allclose(covariance, covariance.T):
    raise UserError(f"not a covariance: symmetric and of no negative eigenvalue; its smallest is {values.min():.3g}")
  kept = values > rounding
  return vectors[:, kept] * np.sqrt(values[kept])[None]
