"""Denoising diffusion on MNIST, 28 x 28.

Ho, Jain and Abbeel 2020 with the cosine schedule; samples by DDIM in 50 steps.  The U-Net works on patches of 2 x 2 pixels, at
14 x 14 and 7 x 7, since a convolution at full size is what a CPU is worst at.

Family: score
Command: gm-jax train ddpm_mnist
Hardware: 2 CPU cores, shared with other work
Minutes: 23
Expected: a classifier of real MNIST is 84 % sure of 1,000 samples; each class is at least 6.0 % of them; seed 0

The classifier is that of experiments/judge.py, 99.1 % right on the test split.
"""

from dataclasses import dataclass

import optax

from experiments import base
from gm_jax.networks.unet import UNet
from gm_jax.score import ddpm


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2500
  batch_size: int = 64  # at equal pictures, more and smaller steps learn more
  channels: tuple[int, ...] = (32, 64)  # of the U-Net's levels, from the finest
  learning_rate: float = 1e-3
  warmup: int = 200  # steps in which the learning rate rises
  decay: float = 0.999  # of the average that samples
  sample_steps: int = 50  # of DDIM


def model(config: Config):
  network = UNet(config.channels, blocks=1, patch=2, attention=(1,))
  learning_rate = optax.warmup_constant_schedule(0.0, config.learning_rate, config.warmup)
  return ddpm.ddpm(
    network,
    optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate)),
    image_shape=(28, 28, 1),
    schedule=ddpm.cosine(),
    sampler=ddpm.clipped(ddpm.ddim(config.sample_steps)),
    decay=config.decay,
  )


def data(config: Config):
  return base.mnist(config)
