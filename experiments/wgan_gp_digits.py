"""WGAN with a gradient penalty on handwritten digits, 8 x 8: three steps of the critic to one of the generator.

Family: implicit
Command: gm-jax train wgan_gp_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 1.3
Expected: the critic's slope is 1.00 at the last step, where the penalty wants 1; seed 0
"""

import dataclasses

import optax

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.implicit import gan
from gm_jax.networks import dcgan


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 6000  # of the critic
  batch_size: int = 64
  n_critic: int = 3  # steps of the critic to one of the generator
  penalty: float = 10.0  # weight of (slope - 1)^2
  learning_rate: float = 4e-4  # of both players' Adam
  momentum: float = 0.0  # Adam's b1, as in the paper
  base: int = 32  # channels at half resolution
  num_latents: int = 32
  decay: float = 0.999  # of the generator's average
  save_every: int = 1500
  sample_every: int = 1500


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate, b1=config.momentum, b2=0.9)
  # No normalisation in the critic: the penalty speaks of each example alone.
  generator, critic = dcgan.Generator((8, 8, 1), config.base), dcgan.Discriminator(config.base, norm=None)
  return gan.gan(
    generator,
    critic,
    gan.wgan_gp(config.penalty),
    optimizer,
    optimizer,
    num_latents=config.num_latents,
    n_critic=config.n_critic,
    decay=config.decay,
  )


def data(config: Config):
  del config
  return base.digits()
