"""MNIST at 7 x 7 or 14 x 14 pixels, and a diffusion model of what the digits were at 28 x 28.

SR3 (Saharia et al. 2021): a U-Net that sees the enlarged image beside the noisy one, with noise on it as well (Ho et al. 2022).
What it draws has the means of blocks that it was given, but for rounding and where they ask for more than black or white.

Family: score
Command: gm-jax train super_resolution_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 22
Expected: to 4 times the sides, 1,000 test images: 18.9 dB a sample, 21.4 the mean of 8 (bicubic 14.6, linear 16.6); seed 0

`gm-jax restore RUN` prints PSNR and SSIM beside simple methods: "corrupted" is bicubic interpolation, "model" one sample, "mean
of 8 samples" what its name says.  A sample has up to 3 dB less than the mean of many, by mathematics and not by mistake: where
the mean blurs, it decides, and that is why it looks like a digit.
"""

import dataclasses
from typing import Literal

from experiments import base, from_images
from gm_jax.core import GenerativeModel
from gm_jax.reconstruction import corruptions
from gm_jax.score import conditional
from gm_jax.tasks import restoration as tasks


@dataclasses.dataclass(frozen=True)
class Config(from_images.Conditional):
  factor: Literal[2, 4] = 4  # by which the sides are smaller
  augmentation: float = 0.2  # the largest deviation of noise on the image that is given; 0: none


def model(config: Config) -> GenerativeModel:
  keeps = conditional.blocks_kept(config.factor, corruptions.enlarged)
  return from_images.model(config, corruptions.coarse(config.factor), num_channels=1, keeps=keeps)


def data(config: Config):
  return base.mnist(config)


def restorer(config: Config) -> tasks.Restoration:
  corrupt = corruptions.coarse(config.factor)
  train = data(config)["train"].arrays["image"][:10_000]
  return from_images.restorer(model(config), corrupt, {"linear": tasks.linear(train, corrupt)})
