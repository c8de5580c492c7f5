"""MNIST with something lost, and a residual network that gives it back: noise, resolution, a square, or what a mark covers.

Family: reconstruction
Command: gm-jax train restore_mnist --task denoise --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 4
Expected: PSNR above every simple method for each task: the table in README.md; watermark with --steps 1000; seed 0

`gm-jax restore RUN` prints PSNR and SSIM beside simple methods, and draws what each makes of test images.
"""

import dataclasses
from typing import Literal

import numpy as np
import optax

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.networks.residual import ResidualNet
from gm_jax.reconstruction import corruptions, restoration
from gm_jax.tasks import restoration as tasks


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  task: Literal["denoise", "erased", "upsample2", "upsample4", "inpaint", "watermark"] = "denoise"  # what is lost
  steps: int = 400
  batch_size: int = 64
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  features: int = 24
  decay: float = 0.99  # of the average of the parameters
  save_every: int = 200

  LEAST = base.Run.LEAST | {"features": 1}


def mark() -> np.ndarray:
  """The watermark: a lattice of diagonals two pixels wide, [28, 28]."""
  row, column = np.mgrid[:28, :28]
  return ((((row + column) % 9) < 2) | (((row - column) % 9) < 2)).astype(np.float32)


def corrupt(config: Config):
  return {
    "denoise": corruptions.gaussian(0.4),
    "erased": corruptions.masking(0.5),
    "upsample2": corruptions.coarse(2),
    "upsample4": corruptions.coarse(4),
    "inpaint": corruptions.hole(10),
    "watermark": corruptions.watermark(mark(), 1.0),
  }[config.task]


def module(config: Config) -> restoration.Restorer:
  return restoration.Restorer(ResidualNet(config.features, dilations=(1, 2, 4, 2, 1)))


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  return restoration.restoration(module(config), optimizer, corrupt(config), decay=config.decay)


def data(config: Config):
  return base.mnist(config)


def restorer(config: Config) -> tasks.Restoration:
  train = data(config)["train"].arrays["image"][:10_000]
  baselines = {
    "median": tasks.median,
    "principal directions": tasks.principal(train, 60),
    "linear": tasks.linear(train, corrupt(config)),
  }
  if config.task == "inpaint":
    baselines["mean image"] = tasks.mean_inside(train)
  return tasks.Restoration(corrupt(config), lambda state, x: restoration.restore(module(config), state, x), baselines)
