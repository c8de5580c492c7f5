"""Mixture of full-covariance Gaussians on handwritten digits, 8 x 8, by EM on the whole training split.

Family: tractable
Command: gm-jax train mixture_digits
Hardware: 2 CPU cores
Minutes: 0.5
Expected: nll 6.26 +- 0.04 bits/dim on the 299 test images, dequantised
"""

import dataclasses

from experiments import base
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.tractable import mixture


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 40  # each is one step of EM
  batch_size: int = 1496  # the training split, less two images: a number that eight devices can share
  num_components: int = 10  # more fit the training split better and the test split worse
  share: float = 1e-3  # of the data set, that each component is given in made-up examples
  variance: float = 1e-2  # of the made-up examples, grey levels being in (0, 1)
  log_every: int = 1
  save_every: int = 20
  sample_every: int = 20

  LEAST = base.Run.LEAST | {"num_components": 1, "share": 1e-9}


def model(config: Config) -> GenerativeModel:
  component = mixture.full_gaussian(config.variance, images.DEQUANTIZED)
  return mixture.mixture(component, config.num_components, config.share)


def data(config: Config):
  del config
  return base.digits()


def protocol(config: Config) -> dict:
  del config
  return {"bin_width": 1.0}  # the nll is the mass of 256 grey levels, not a density
