"""CIFAR-10 without its colours, or coarser, or with a square missing, and a residual network that gives them back.

Family: reconstruction
Command: gm-jax train restore_cifar10 --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 3
Expected: PSNR above every simple method for each task: the table in README.md; colour with --steps 1000; seed 0

`gm-jax restore RUN` prints PSNR and SSIM beside simple methods, and draws what each makes of test images.
"""

import dataclasses
from typing import Literal

import numpy as np
import optax

from experiments import base
from gm_jax import data as datasets
from gm_jax.core import GenerativeModel
from gm_jax.networks.residual import ResidualNet
from gm_jax.reconstruction import corruptions, restoration
from gm_jax.tasks import restoration as tasks


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  task: Literal["colour", "upsample2", "upsample4", "upsample8", "inpaint"] = "colour"  # what is lost
  steps: int = 400
  batch_size: int = 32
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  features: int = 32
  decay: float = 0.99  # of the average of the parameters
  save_every: int = 200

  LEAST = base.Run.LEAST | {"features": 1}


def corrupt(config: Config):
  return {
    "colour": corruptions.grey(),
    "upsample2": corruptions.coarse(2),
    "upsample4": corruptions.coarse(4),
    "upsample8": corruptions.coarse(8),
    "inpaint": corruptions.hole(10),
  }[config.task]


def module(config: Config) -> restoration.Restorer:
  return restoration.Restorer(ResidualNet(config.features, dilations=(1, 2, 4, 2, 1)))


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  return restoration.restoration(module(config), optimizer, corrupt(config), decay=config.decay)


def data(config: Config):
  return {split: datasets.tfds_images("cifar10", split, config.data_dir) for split in ("train", "test")}


def restorer(config: Config) -> tasks.Restoration:
  """What is not restored at all is the simple method for colours (grey) and resolution (bicubic)."""
  train = data(config)["train"].gather(np.arange(10_000))["image"]
  baselines = {"principal directions": tasks.principal(train, 200)}
  if config.task == "inpaint":
    baselines["mean image"] = tasks.mean_inside(train)
  return tasks.Restoration(corrupt(config), lambda state, x: restoration.restore(module(config), state, x), baselines)
