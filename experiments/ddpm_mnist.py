"""DDPM on MNIST, 28 x 28: the network guesses the noise, at levels of a cosine schedule.

Ho, Jain and Abbeel 2020 with the schedule of Nichol and Dhariwal 2021.  `edm_mnist` and `flow_matching_mnist` have the same
network and budget.

Family: score
Command: gm-jax train ddpm_mnist --data-dir DIR --cpu-devices 2
Hardware: 2 CPU cores
Minutes: 27
Expected: 100 % of 500 guided digits as asked; bound 2.15 +- 0.02, flow 2.00 +- 0.02 bits/dim (300 test images)

`gm-jax sample RUN --label 3` asks for a digit; `gm-jax likelihood RUN`, `solvers RUN` and `edit RUN` say what else it can do.
"""

import dataclasses

from experiments import base, denoisers
from gm_jax.score import noise, recipes

SHAPE, CLASSES = (28, 28, 1), 10
RECIPE = recipes.ddpm(noise.cosine())


@dataclasses.dataclass(frozen=True)
class Config(denoisers.Diffusion):
  solver: denoisers.Solver = "ancestral"  # of samples, as the paper draws them: noise makes up for earlier mistakes
  sample_steps: int = 100  # of the solver
  guidance: float = 3.0  # scale, for samples of a label: 1 is none


def model(config: Config):
  return denoisers.model(config, RECIPE, SHAPE, CLASSES)


def data(config: Config):
  return base.mnist(config)


def measure(config: Config):
  return denoisers.measure(denoisers.module(config, RECIPE, CLASSES))


def protocol(config: Config):
  return {"bin_width": 1.0}


def editor(config: Config):
  return denoisers.editor(config, denoisers.module(config, RECIPE, CLASSES))


def pictures(config: Config, state) -> dict:
  return denoisers.pictures(config, denoisers.module(config, RECIPE, CLASSES), state, SHAPE)
