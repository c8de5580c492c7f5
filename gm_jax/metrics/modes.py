"""How many modes do the samples have, where the true ones are known?  The measures of PacGAN (Lin et al. 2018,
https://arxiv.org/abs/1712.04086), after Metz et al. 2017 and Srivastava et al. 2017.

Points on the plane belong to the nearest centre of a mixture of equal Gaussians; images belong to what a classifier calls
them, or calls their channels (stacked MNIST: three digits, 1,000 modes).  The reverse divergence is that of the shares q of the
modes among samples from uniform ones,

    KL(q || u) = sum_i q_i log(K q_i) = log K - H(q)      in nats,

between 0 and log K: a mode without samples adds nothing to it but what the others have too much.  N samples of the law itself
have about (K - 1) / 2N nats.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError
from gm_jax.metrics.frechet import checked


class Modes(NamedTuple):
  """What samples show of K modes."""

  covered: int  # modes with samples, at most K
  high_quality: float  # share of samples near their nearest mode; of images, which all have a label, 1
  reverse_kl: float  # nats, between 0 and log K; infinite where no sample is near any mode
  counts: np.ndarray  # int [K], samples near each mode


def of_points(points, centres, std: float, *, deviations: float = 3.0, least: int = 1) -> Modes:
  """Modes of a mixture of equal round Gaussians.

  Of N samples on the plane from the law itself a share of 1 - exp(-deviations^2 / 2) is of high quality: 98.9 % within 3, and
  99.97 % within 4.

  Args:
    points: samples, [N, D] or [N, 1, 1, D].
    centres: of the modes, [K, D].
    std: of every mode, along each axis.
    deviations: a sample this many `std` or less from its nearest centre is near it, and of high quality; only such are counted.
    least: samples near a mode that make it covered.
  """
  points = np.asarray(points)
  points = checked(points[:, 0, 0] if points.ndim == 4 else points, "points")
  centres = checked(centres, "centres").astype(np.float64)
  if points.shape[1] != centres.shape[1]:
    raise UserError(f"points of {points.shape[1]} dimensions, and centres of {centres.shape[1]}")
  if not (std > 0 and deviations > 0):
    raise UserError(f"modes of deviation {std} and samples within {deviations} of them; both are positive")
  squared = np.stack([np.square(points - centre[None]).sum(1) for centre in centres], 1)  # [N, K]
  near = squared.min(1) <= (deviations * std) ** 2
  return _summary(np.bincount(squared.argmin(1)[near], minlength=len(centres)), len(points), least)


def of_labels(labels, num_modes: int, *, least: int = 1) -> Modes:
  """Modes that are labels: int [N] in range(num_modes), as a classifier names the samples; `least` as in `of_points`."""
  labels = np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
    raise UserError(f"labels of shape {list(labels.shape)} and type {labels.dtype}; take integers, one for each sample")
  if labels.min() < 0 or labels.max() >= num_modes:
    raise UserError(f"labels from {labels.min()} to {labels.max()}; there are modes 0 to {num_modes - 1}")
  return _summary(np.bincount(labels, minlength=num_modes), len(labels), least)


def over_runs(found: Sequence[Modes]) -> dict[str, np.ndarray]:
  """What each of several runs (the seeds of one GAN) shows: {name: float64 [N]}.

  "modes", "high_quality" and "reverse_kl" are theirs; where no sample is near any mode the divergence is counted as log K, that
  of samples of a single one.  "collapsed" is 1 for a run whose samples lack a mode, and 0 for one that covers all: its mean,
  the share of runs that do not cover all modes, is the collapse rate.
  """
  num_modes = [len(modes.counts) for modes in found]
  columns = {
    "modes": [modes.covered for modes in found],
    "high_quality": [modes.high_quality for modes in found],
    "reverse_kl": [min(modes.reverse_kl, np.log(total)) for modes, total in zip(found, num_modes)],
    "collapsed": [modes.covered < total for modes, total in zip(found, num_modes)],
  }
  return {name: np.array(values, np.float64) for name, values in columns.items()}


def joint_labels(labels, num_classes: int) -> np.ndarray:
  """Labels of several parts of an image, int [N, P] -> one label of them all, int [N] in range(num_classes^P).

  The first part counts most: digits 1, 2, 3 of stacked MNIST's channels are mode 123.
  """
  labels = np.asarray(labels)
  if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0 or labels.max() >= num_classes:
    raise UserError(f"labels of shape {list(labels.shape)} and type {labels.dtype}; take integers [N, P] below {num_classes}")
  return labels.astype(np.int64) @ num_classes ** np.arange(labels.shape[1])[::-1]


def _summary(counts, num: int, least: int) -> Modes:
  if least < 1:
    raise UserError(f"{least} samples make a mode covered; take at least 1")
  near = counts.sum()
  if near:
    shares = counts[counts > 0] / near
    reverse_kl = float((shares * np.log(len(counts) * shares)).sum())
  else:
    reverse_kl = np.inf
  return Modes(int((counts >= least).sum()), float(near / num), reverse_kl, counts)
