"""Noise-conditional score network on handwritten digits, 8 x 8, drawn by annealed Langevin dynamics.

Song and Ermon 2019: the score at ten noise levels in geometric steps, and from each level to the next a random walk along it.
`--sampler predictor-corrector` walks as Song et al. 2021 do, an ancestral step to each level and Langevin steps there, whose
length depends on the score's.  The network is told the class, so samples of a class are asked for by `gm-jax sample --label`.

Family: score
Command: gm-jax train ncsn_digits
Hardware: 2 CPU cores, shared with another training
Minutes: 7.3
Expected: the noise's squared error is 0.306 +- 0.015 on the 299 test images (`gm-jax evaluate`), seed 0; pictures like digits
"""

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import optax

from experiments import base, shown
from gm_jax.networks.unet import UNet
from gm_jax.score import diffusion, guidance, noise, recipes
from gm_jax.score.langevin import AnnealedLangevin, PredictorCorrector

SHAPE, CLASSES = (8, 8, 1), 10


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2000
  batch_size: int = 64
  channels: int = 64  # of the U-Net, which has one level, on patches of 2 x 2 pixels
  blocks: int = 2  # residual blocks of each way
  learning_rate: float = 2e-3  # of Adam: it rises for 200 steps, then falls along a cosine
  label_dropout: float = 0.1  # share of examples whose label is hidden
  decay: float = 0.999  # of the average of the parameters
  num_levels: int = 10
  largest: float = 10.0  # sigma / alpha, of images in [-1, 1]: about how far apart two of them are
  least: float = 0.01
  sampler: Literal["langevin", "predictor-corrector"] = "langevin"
  level_steps: int = 50  # of Langevin dynamics at each level
  step_size: float = 0.2  # of a step of "langevin", over the level's variance
  snr: float = 0.16  # of a step of "predictor-corrector": its length over that of its noise
  sample_every: int = 1000

  LEAST: ClassVar[dict[str, float]] = base.Run.LEAST | {"channels": 4, "blocks": 1, "num_levels": 2, "level_steps": 1}


def recipe(config: Config) -> recipes.Recipe:
  return recipes.ncsn(config.largest, config.least, config.num_levels)


def sampler(config: Config):
  """From the largest level to the least, and the guess there."""
  levels = noise.from_ratio(np.geomspace(config.largest, config.least, config.num_levels))
  grid, kept = np.append(levels, np.inf), (guidance.clipped(),)
  if config.sampler == "langevin":
    return diffusion.Sampler(AnnealedLangevin(config.level_steps, config.step_size)(grid), kept)
  return PredictorCorrector(grid, kept, config.snr, config.level_steps)


def model(config: Config):
  rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, 200, max(config.steps, 201))
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
  network = UNet((config.channels,), blocks=config.blocks, patch=2, attention=(0,), num_classes=CLASSES)
  told = dict(num_classes=CLASSES, label_dropout=config.label_dropout, decay=config.decay)
  return diffusion.diffusion(network, optimizer, recipe(config), sampler(config), image_shape=SHAPE, **told)


def data(config: Config):
  del config
  return base.digits()


def pictures(config: Config, state) -> dict:
  return {"classes": shown.of_classes(model(config), state, CLASSES)}
