"""Mixtures of 2, 12, 50 or 100 full-covariance Gaussians on two moons: how many does a curve take?

`gm-jax evaluate` reports, beside "nll", "gap": log p_true(x) - log p_model(x) in nats, whose mean is KL(true || model).
`python -m experiments.densities RUN...` draws several of them beside the truth.

Family: tractable
Command: gm-jax train mixture_moons
Hardware: 2 CPU cores, shared with other work
Minutes: 0.4
Expected: gap 0.0060 +- 0.0008 nats; with --num-components 2, 50, 100: 0.721, 0.0066 and 0.0094
"""

import dataclasses

from experiments import base, laws
from gm_jax.core import GenerativeModel
from gm_jax.data import toys
from gm_jax.tractable import mixture

LAW, REACH = toys.two_moons(), 2.5


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 200  # each is one step of EM
  batch_size: int = 20_000  # the training split
  num_points: int = 20_000  # in each split
  num_components: int = 12
  share: float = 1e-4  # of the data set, that each component is given in made-up examples
  variance: float = 1e-2  # of the made-up examples; the noise around the arcs has as much
  log_every: int = 1
  save_every: int = 100
  sample_every: int = 0
  num_samples: int = 1000

  LEAST = base.Run.LEAST | {"num_points": 1, "num_components": 1, "share": 1e-9}


def model(config: Config) -> GenerativeModel:
  return mixture.mixture(mixture.full_gaussian(config.variance), config.num_components, config.share)


def data(config: Config):
  return laws.splits(LAW, config.num_points, ("train", "validation", "test"))


def measure(config: Config):
  return laws.gap(model(config).evaluate)


def pictures(config: Config, state: mixture.State) -> dict:
  return {"density": laws.density_picture(model(config), state, REACH)}
