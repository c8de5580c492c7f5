"""Laws on the plane whose density is known, so that a model's likelihood can be held against the truth.

    law = ring()
    train = law.dataset(10_000, seed=0)            # points float32 [N, 1, 1, 2], labels: which mode
    nats = law.log_prob(points)                    # the exact log density

A point is an image of one pixel and two channels, so every model reads it like any other image.
"""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gm_jax.data import noise
from gm_jax.data.dataset import Dataset, from_arrays


class Toy(NamedTuple):
  """A law on the plane.

  Attributes:
    name: for the protocol.
    draw: `(numpy generator, num) -> (points [num, 2], labels [num])`; a label says which mode, arc or square a point came from.
    density: `points [N, 2] -> log density [N]` in nats, float64; minus infinity off the support.
  """

  name: str
  draw: Callable
  density: Callable

  def dataset(self, num: int, seed: int, split: str = "train") -> Dataset:
    """`num` independent points; splits of one seed are independent of each other."""
    generator = np.random.Generator(noise.bits(seed, noise.POINTS, zlib.crc32(split.encode())))
    points, labels = self.draw(generator, num)
    return from_arrays(points, labels, data=self.name, split=split, points_seed=seed)

  def log_prob(self, points, chunk: int = 4096) -> np.ndarray:
    """Exact log density in nats, float64 [N], of points [N, 2] or [N, 1, 1, 2]."""
    points = np.asarray(points, np.float64)
    points = points.reshape(len(points), -1)
    pieces = [self.density(points[first : first + chunk]) for first in range(0, len(points), chunk)]
    return np.concatenate(pieces) if pieces else np.zeros(0)


def gaussian_mixture(means, covariances, weights=None, name: str = "gaussian_mixture") -> Toy:
  """A mixture of K Gaussians, on the plane or in any other dimension D.

  Args:
    means: [K, D].
    covariances: [K, D, D] or [D, D], or a standard deviation for all.
    weights: [K], positive, or None for equal ones; normalised here.
    name: for the protocol.
  """
  means = np.asarray(means, np.float64)
  covariances = np.asarray(covariances, np.float64)
  num_dims = means.shape[1]
  covariances = covariances**2 * np.eye(num_dims) if covariances.ndim == 0 else covariances
  factors = np.linalg.cholesky(np.broadcast_to(covariances, (len(means), num_dims, num_dims)))
  weights = np.ones(len(means)) if weights is None else np.asarray(weights, np.float64)
  weights = weights / weights.sum()
  log_scale = np.log(weights) - num_dims / 2 * math.log(2 * math.pi) - np.log(np.linalg.det(factors))  # [K]

  def draw(generator, num):
    labels = generator.choice(len(means), num, p=weights)
    return means[labels] + np.einsum("nij,nj->ni", factors[labels], generator.standard_normal((num, num_dims))), labels

  def density(points):
    standard = np.einsum("kij,nkj->nki", np.linalg.inv(factors), points[:, None] - means)  # [N, K, D]
    return _log_sum_exp(log_scale - 0.5 * (standard**2).sum(-1))

  return Toy(name, draw, density)


def ring(num_modes: int = 8, radius: float = 2.0, std: float = 0.02) -> Toy:
  """Equal Gaussians on a circle; the defaults are those of Metz et al. 2017, where GANs first lost their modes."""
  angles = 2 * math.pi * np.arange(num_modes) / num_modes
  return gaussian_mixture(radius * np.stack([np.cos(angles), np.sin(angles)], -1), std, name="ring")


def grid(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> Toy:
  """side * side equal Gaussians on a square lattice around the origin; the defaults are those of Lin et al. 2018 (PacGAN)."""
  ticks = spacing * (np.arange(side) - (side - 1) / 2)
  return gaussian_mixture(np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(-1, 2), std, name="grid")


def two_moons(std: float = 0.1) -> Toy:
  """Two half circles of radius 1 that interlock, with Gaussian noise around them.

  Along each arc the angle is uniform, so the density is an average of Gaussians over the angle: an integral taken by
  Gauss-Legendre, with nodes ten times closer than `std`.
  """
  nodes, weights = np.polynomial.legendre.leggauss(max(64, math.ceil(10 * math.pi / std)))
  angles = (nodes + 1) * math.pi / 2
  log_weights = np.tile(np.log(weights / 4), 2)  # the weights of one arc sum to 2, and there are two arcs
  centres = np.concatenate([_upper_arc(angles), _lower_arc(angles)])

  def draw(generator, num):
    labels = generator.integers(0, 2, num)
    angles = generator.uniform(0, math.pi, num)
    arcs = np.where(labels[:, None] == 0, _upper_arc(angles), _lower_arc(angles))
    return arcs + std * generator.standard_normal((num, 2)), labels

  def density(points):
    distance2 = ((points[:, None] - centres) ** 2).sum(-1)  # [N, nodes]
    return _log_sum_exp(log_weights - distance2 / (2 * std**2)) - math.log(2 * math.pi * std**2)

  return Toy("two_moons", draw, density)


def checkerboard(side: int = 4, width: float = 2.0) -> Toy:
  """Uniform on the dark squares of a side * side board around the origin, `side` even; each square is `width` wide."""
  dark = np.array([(row, column) for row in range(side) for column in range(side) if (row + column) % 2 == 0])
  corners = width * (dark - side / 2)

  def draw(generator, num):
    labels = generator.integers(0, len(dark), num)
    return corners[labels] + width * generator.uniform(size=(num, 2)), labels

  def density(points):
    cells = np.floor(points / width + side / 2)
    inside = ((cells >= 0) & (cells < side)).all(-1) & (cells.sum(-1) % 2 == 0)
    return np.where(inside, -math.log(len(dark) * width**2), -np.inf)

  return Toy("checkerboard", draw, density)


TOYS = {"ring": ring, "grid": grid, "two_moons": two_moons, "checkerboard": checkerboard}


def _upper_arc(angles):
  return np.stack([np.cos(angles), np.sin(angles)], -1)


def _lower_arc(angles):
  return np.stack([1 - np.cos(angles), 0.5 - np.sin(angles)], -1)


def _log_sum_exp(x):
  """Over the last axis, in log space: [N, K] -> [N]."""
  largest = x.max(-1, keepdims=True)
  return largest[:, 0] + np.log(np.exp(x - largest).sum(-1))
