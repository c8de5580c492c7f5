"""Is each sample clearly of one class, and are all classes there?  The score of Salimans et al. 2016,
https://arxiv.org/abs/1606.03498, by any classifier.

    exp E_x KL(p(y | x) || p(y)) = exp I(x; y)      p(y) = E_x p(y | x)

is the number of classes that the classifier tells apart in the samples: from 1, where it sees the same in all of them, to K.
It looks at no real image, and one sample of each class repeated has the largest.  It is called Inception score (IS) where the
classifier is Inception's, and nowhere else.
"""

from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError
from gm_jax.metrics.frechet import checked


class Score(NamedTuple):
  """Over splits of the samples, each with its own p(y)."""

  mean: float  # between 1 and the number of classes
  deviation: float  # between splits, as papers give it: not the error of the mean
  num_splits: int


def of_logits(logits, splits: int = 10) -> Score:
  """From a classifier's logits [N, K] of samples; see `of_probabilities`."""
  logits = checked(logits, "logits").astype(np.float64)
  p = np.exp(logits - logits.max(1, keepdims=True))
  return of_probabilities(p / p.sum(1, keepdims=True), splits)


def of_probabilities(probabilities, splits: int = 10) -> Score:
  """From p(y | x), [N, K], of samples.

  Args:
    probabilities: rows that sum to one.
    splits: 1 to N parts of about N / splits samples, cut in their order: mix samples that are sorted by class.  The score of n
      samples is biased downwards, by up to about (K - 1) / 2n of itself: compare at equal n.
  """
  p = checked(probabilities, "probabilities").astype(np.float64)
  if p.min() < 0 or np.abs(p.sum(1) - 1).max() > 1e-3:
    sums = p.sum(1)
    raise UserError(f"probabilities from {p.min():.3g}, rows that sum to {sums.min():.4g} to {sums.max():.4g} instead of 1")
  if not 1 <= splits <= len(p):
    raise UserError(f"{splits} splits of {len(p)} samples; take 1 to {len(p)}")
  scores = np.array([_score(part) for part in np.array_split(p / p.sum(1, keepdims=True), splits)])
  return Score(float(scores.mean()), float(scores.std()), splits)


def _score(p) -> float:
  """0 log 0 is 0; where p(y) is zero, so is p(y | x)."""
  occurs = p > 0
  ratio = np.where(occurs, p, 1) / np.where(occurs, p.mean(0, keepdims=True), 1)
  return float(np.exp((p * np.log(ratio)).sum(1).mean()))
