"""CIFAR-10 in grey, and a diffusion model of its colours.

Palette (Saharia et al. 2022): a U-Net that sees the grey image beside the noisy one.  What it draws has the grey that it was
given, but for rounding and where colours would leave their range.

Family: score
Command: gm-jax train colour_cifar10 --data-dir DIR
Hardware: 2 CPU cores
Minutes: not measured yet
Expected: not measured yet

`gm-jax restore RUN` prints PSNR and SSIM beside leaving it grey ("corrupted"): "model" is one sample, "mean of 8 samples" what
its name says.  Many colours fit one grey: their mean is nearest in squared error, and pale; a sample is one of them, and has up
to 3 dB less.
"""

import dataclasses

import numpy as np

from experiments import from_images
from gm_jax import data as datasets
from gm_jax.core import GenerativeModel
from gm_jax.reconstruction import corruptions
from gm_jax.score import conditional
from gm_jax.tasks import restoration as tasks


@dataclasses.dataclass(frozen=True)
class Config(from_images.Conditional):
  steps: int = 3000
  batch_size: int = 32
  channels: tuple[int, ...] = (48, 96)


def model(config: Config) -> GenerativeModel:
  return from_images.model(config, corruptions.grey(), num_channels=3, keeps=conditional.grey_kept)


def data(config: Config):
  return {split: datasets.tfds_images("cifar10", split, config.data_dir) for split in ("train", "test")}


def restorer(config: Config) -> tasks.Restoration:
  train = data(config)["train"].gather(np.arange(10_000))["image"]
  return from_images.restorer(model(config), corruptions.grey(), {"principal directions": tasks.principal(train, 200)})
