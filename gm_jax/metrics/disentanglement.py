"""Does each latent stand for one thing, and each thing for one latent?  Judged where the factors of the data are known.

  MIG    how much more the best latent tells of a factor than the second best (Chen et al. 2018,
         https://arxiv.org/abs/1802.04942)
  DCI    disentanglement, completeness and informativeness, by what a simple predictor of each factor looks at (Eastwood &
         Williams 2018, https://openreview.net/forum?id=By-7dz-AZ)

Codes [N, Z] are means of posteriors, or whatever else a model makes of images; factors are int [N, F].
"""

from typing import NamedTuple

import numpy as np

from gm_jax import information
from gm_jax.metrics import probe


def mutual_information_gap(codes, factors, bins: int = 20) -> float:
  """The mean over factors of (I of the best latent - I of the second best) / H(factor), between 0 and 1.

  Each latent is cut into `bins` of equal width, and informations are those of the counts: over few examples they are too large.
  """
  table = information_matrix(codes, factors, bins)
  first, second = np.sort(table, 0)[::-1][:2] if len(table) > 1 else (table[0], 0 * table[0])
  return float(((first - second) / _entropies(factors)).mean())


def information_matrix(codes, factors, bins: int = 20) -> np.ndarray:
  """I(latent; factor) in nats, [Z, F]."""
  codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
  low, high = codes.min(0), codes.max(0)
  binned = np.clip((codes - low) / np.maximum(high - low, 1e-12) * bins, 0, bins - 1).astype(int)
  of_pair = lambda latent, factor: float(information.mutual_information(_joint(binned[:, latent], factors[:, factor]), 0))
  return np.array([[of_pair(latent, factor) for factor in range(factors.shape[1])] for latent in range(codes.shape[1])])


class DCI(NamedTuple):
  """Each between 0 and 1."""

  disentanglement: float  # of latents: each important for one factor alone, weighed by importance
  completeness: float  # of factors: each told by one latent alone
  informativeness: float  # accuracy of the predictors on the test examples
  importance: np.ndarray  # [Z, F], of latents for factors


def dci(train, test, penalty: float = 1e-3) -> DCI:
  """By linear classifiers of each factor; each of `train` and `test` is (codes [N, Z], factors int [N, F]).

  The importance of a latent for a factor is the mean size of its weights, latents being standardised.
  """
  (codes, factors), (test_codes, test_factors) = train, test
  importance, right = [], []
  for factor in range(factors.shape[1]):
    fitted = probe.fit(codes, factors[:, factor], int(factors[:, factor].max()) + 1, penalty=penalty)
    importance.append(np.abs(np.asarray(fitted.weights, np.float64)).mean(1))
    right.append((probe.predict(fitted, test_codes) == test_factors[:, factor]).mean())
  disentanglement, completeness = concentration(np.stack(importance, 1))
  return DCI(disentanglement, completeness, float(np.mean(right)), np.stack(importance, 1))


def concentration(importance) -> tuple[float, float]:
  """Disentanglement and completeness of importances [Z, F], at least 0: one less the normalised entropy of each row, weighed by
  the rows' sums, and the mean over columns of the same for each column."""
  importance = np.asarray(importance, np.float64)
  rows, columns = _peakedness(importance), _peakedness(importance.T)
  weight = importance.sum(1) / importance.sum()
  return float((weight * rows).sum()), float(columns.mean())


def _peakedness(rows) -> np.ndarray:
  """1 - entropy / log(number of entries), of each row as probabilities."""
  if rows.shape[1] == 1:
    return np.ones(len(rows))
  p = rows / np.maximum(rows.sum(1, keepdims=True), 1e-300)
  entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
  return 1 - entropy / np.log(rows.shape[1])


def _joint(a, b) -> np.ndarray:
  """The table of frequencies of two arrays of integers."""
  table = np.zeros((a.max() + 1, b.max() + 1))
  np.add.at(table, (a, b), 1)
  return table / table.sum()


def _entropies(factors) -> np.ndarray:
  """H of each factor in nats, float64 [F]."""
  return np.array([float(information.entropy(np.bincount(factor) / len(factor))) for factor in np.asarray(factors).T])
