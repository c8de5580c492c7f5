"""How many latents a model uses, read off the means of its posteriors."""

import numpy as np


def spread(means) -> np.ndarray:
  """Variance over the data of each latent's posterior mean: means [N, Z] of q(z | x_n) -> float64 [Z].

  A latent that tells nothing of x has the same posterior for every x, so its mean does not vary.
  """
  return np.asarray(means, np.float64).var(axis=0)


def active_units(means, threshold: float = 0.01) -> int:
  """How many latents have a `spread` above the threshold (Burda et al. 2016): of means [N, Z], at most Z.

  The spread falls into two heaps far apart, so the threshold hardly matters.
  """
  return int((spread(means) > threshold).sum())
