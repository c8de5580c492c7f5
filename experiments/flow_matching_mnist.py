"""Flow matching on MNIST, 28 x 28: straight lines between noise and images, and the velocity along them.

Lipman et al. 2023, Liu et al. 2023 (rectified flow); Euler's method in its time is DDIM.  `ddpm_mnist` and `edm_mnist` have the
same network and budget.

Family: score
Command: gm-jax train flow_matching_mnist --data-dir DIR --cpu-devices 2
Hardware: 2 CPU cores, shared with other work
Minutes: 28
Expected: 99.6 % of 500 guided digits as asked; bound 2.51 +- 0.03, flow 2.11 +- 0.02 bits/dim (300 test images)

`gm-jax sample RUN --label 3` asks for a digit; `gm-jax likelihood RUN`, `solvers RUN` and `edit RUN` say what else it can do.
"""

import dataclasses

from experiments import base, denoisers
from gm_jax.score import recipes

SHAPE, CLASSES = (28, 28, 1), 10
RECIPE = recipes.flow_matching()


@dataclasses.dataclass(frozen=True)
class Config(denoisers.Diffusion):
  solver: denoisers.Solver = "unipc"  # of samples


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
