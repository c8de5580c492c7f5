"""DDPM on handwritten digits, 8 x 8: a small U-Net on patches of 2 x 2 pixels.

Ho, Jain and Abbeel 2020 with the schedule of Nichol and Dhariwal 2021, told the class.

Family: score
Command: gm-jax train ddpm_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 6
Expected: nll 5.52 +- 0.02 bits/dim by the flow, a bound 6.06 +- 0.02, on the 299 test images (`gm-jax likelihood`), seed 0
"""

import dataclasses

from experiments import base, denoisers
from gm_jax.score import noise, recipes

SHAPE, CLASSES = (8, 8, 1), 10
RECIPE = recipes.ddpm(noise.cosine())


@dataclasses.dataclass(frozen=True)
class Config(denoisers.Diffusion):
  steps: int = 2000
  channels: tuple[int, ...] = (64,)  # of the U-Net's levels, from the finest
  blocks: int = 2  # residual blocks of each level


def model(config: Config):
  return denoisers.model(config, RECIPE, SHAPE, CLASSES)


def data(config: Config):
  del config
  return base.digits()


def measure(config: Config):
  return denoisers.measure(denoisers.module(config, RECIPE, CLASSES))


def protocol(config: Config):
  del config
  return {"bin_width": 1.0}


def editor(config: Config):
  return denoisers.editor(config, denoisers.module(config, RECIPE, CLASSES))


def pictures(config: Config, state) -> dict:
  return denoisers.pictures(config, denoisers.module(config, RECIPE, CLASSES), state, SHAPE)
