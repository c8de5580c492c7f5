"""Non-saturating GAN on handwritten digits, 8 x 8: DCGAN's two players at their smallest.

Family: implicit
Command: gm-jax train gan_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 0.8
Expected: the critic gives the 299 test images a logit of 0.40 +- 0.05, where one that cannot tell gives 0; seed 0
"""

import dataclasses

import optax

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.implicit import gan
from gm_jax.implicit import latents as laws
from gm_jax.networks import dcgan
from gm_jax.tasks import latents as tasks


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 4000
  batch_size: int = 64
  learning_rate: float = 2e-4  # of both players' Adam
  momentum: float = 0.5  # Adam's b1: half of the usual, as the other player moves the ground
  base: int = 32  # channels at half resolution
  num_latents: int = 32
  decay: float = 0.999  # of the generator's average
  save_every: int = 1000
  sample_every: int = 1000


def generator(config: Config) -> dcgan.Generator:
  return dcgan.Generator((8, 8, 1), config.base)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate, b1=config.momentum)
  critic, game = dcgan.Discriminator(config.base), gan.non_saturating()
  return gan.gan(generator(config), critic, game, optimizer, optimizer, num_latents=config.num_latents, decay=config.decay)


def data(config: Config):
  del config
  return base.digits()


def latents(config: Config) -> tasks.Latents:
  return tasks.of_gan(generator(config), laws.normal(config.num_latents))
