"""DCGAN on MNIST: strided convolutions, batch normalisation, and a generator that wants its images called real.

Family: implicit
Command: gm-jax train dcgan_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 7.0
Expected: a classifier of real MNIST is 89 % sure of 1,000 samples; each class is at least 3.4 % of them; seed 0

The classifier is that of experiments/judge.py, 99.1 % right on the test split.  `gm-jax latent RUN --task
interpolate` (arithmetic, project, edit) walks through its latent space.
"""

import dataclasses

import optax

from experiments.base import Run, mnist
from gm_jax.core import GenerativeModel
from gm_jax.implicit import gan
from gm_jax.implicit import latents as laws
from gm_jax.networks import dcgan
from gm_jax.tasks import latents as tasks


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 6000
  batch_size: int = 64
  learning_rate: float = 2e-4  # of both players' Adam
  momentum: float = 0.5  # Adam's b1: half of the usual, as the other player moves the ground
  base: int = 32  # channels at half resolution; twice as many at a quarter
  num_latents: int = 64
  decay: float = 0.999  # of the generator's average
  sample_every: int = 1000
  save_every: int = 1000


def generator(config: Config) -> dcgan.Generator:
  return dcgan.Generator((28, 28, 1), config.base)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate, b1=config.momentum)
  critic, game = dcgan.Discriminator(config.base), gan.non_saturating()
  return gan.gan(generator(config), critic, game, optimizer, optimizer, num_latents=config.num_latents, decay=config.decay)


def data(config: Config):
  return mnist(config)


def latents(config: Config) -> tasks.Latents:
  return tasks.of_gan(generator(config), laws.normal(config.num_latents))
