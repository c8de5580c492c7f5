"""Mixture of full-covariance Gaussians on the ring of eight: the density is known, so the gap to the truth is measured.

`gm-jax evaluate` reports, beside "nll", "gap": log p_true(x) - log p_model(x) in nats, whose mean is KL(true || model).

Family: tractable
Command: gm-jax train mixture_ring
Hardware: 2 CPU cores
Minutes: 0.3
Expected: gap 0.0043 +- 0.0010 nats on 8,000 test points (theory: 47 parameters / (2 * 8,000 points) = 0.0029)
"""

import dataclasses

from experiments import base, laws
from gm_jax.core import GenerativeModel
from gm_jax.data import toys
from gm_jax.tractable import mixture

LAW = toys.ring()


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 60  # each is one step of EM
  batch_size: int = 8000  # the training split
  num_points: int = 8000  # in each split
  num_components: int = 8
  share: float = 1e-5  # of the data set, that each component is given in made-up examples
  variance: float = 1e-2  # of the made-up examples; the modes' own is 4e-4
  log_every: int = 1
  save_every: int = 30
  sample_every: int = 0
  num_samples: int = 1000

  LEAST = base.Run.LEAST | {"num_points": 1, "num_components": 1, "share": 1e-9}


def model(config: Config) -> GenerativeModel:
  return mixture.mixture(mixture.full_gaussian(config.variance), config.num_components, config.share)


def data(config: Config):
  return laws.splits(LAW, config.num_points)


def measure(config: Config):
  return laws.gap(model(config).evaluate)
