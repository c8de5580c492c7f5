"""EDM on MNIST, 28 x 28: inputs and targets of unit variance at every noise level.

Karras et al. 2022, sampled by their Heun solver.  `ddpm_mnist` and `flow_matching_mnist` have the same network and budget.

Family: score
Command: gm-jax train edm_mnist --data-dir DIR --cpu-devices 2
Hardware: 2 CPU cores, shared with other work
Minutes: 30
Expected: 98.4 % of 500 guided digits as asked; bound 2.75 +- 0.02, flow 2.05 +- 0.02 bits/dim (300 test images)

`gm-jax sample RUN --label 3` asks for a digit; `gm-jax likelihood RUN`, `solvers RUN` and `edit RUN` say what else it can do.
"""

import dataclasses

from experiments import base, denoisers
from gm_jax.score import recipes

SHAPE, CLASSES = (28, 28, 1), 10
RECIPE = recipes.edm(data_std=0.6)


@dataclasses.dataclass(frozen=True)
class Config(denoisers.Diffusion):
  solver: denoisers.Solver = "heun"  # of samples
  sample_steps: int = 18  # of the solver: 35 evaluations


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
