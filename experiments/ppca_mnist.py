"""Probabilistic PCA on grey MNIST, dequantised: 50 directions and one variance for all the rest, by EM.

What a Gaussian costs when its covariance is not to be held: compare gaussian_mnist.  One variance for the rest suits digits
badly, since at the border of the image nothing varies.

Family: tractable
Command: gm-jax train ppca_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 0.4
Expected: nll 7.043 +- 0.003 bits/dim on the 10,000 test images, dequantised
"""

import dataclasses

import numpy as np

from experiments import base
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.tractable import gaussian


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 12  # each is one step of EM
  batch_size: int = 60_000  # the training split
  rank: int = 50
  log_every: int = 1
  save_every: int = 6
  sample_every: int = 0

  LEAST = base.Run.LEAST | {"rank": 1}


def model(config: Config) -> GenerativeModel:
  return gaussian.low_rank(config.rank)


def data(config: Config):
  return base.mnist(config)


def protocol(config: Config) -> dict:
  del config
  return {"bin_width": 1.0}  # the nll is the mass of 256 grey levels, not a density


def pictures(config: Config, state: gaussian.LowRankState) -> dict:
  """The ten strongest directions, rotated out of W: each to its own scale, grey where it changes nothing."""
  del config
  directions, _, _ = np.linalg.svd(np.asarray(state.factor, np.float64), full_matrices=False)
  shown = directions.T[:10].reshape(-1, *state.mean.shape)
  shown /= 2 * np.abs(shown).max((1, 2, 3), keepdims=True)
  return {"directions": images.grid(np.asarray(images.from_unit(0.5 + shown)), columns=5)}
