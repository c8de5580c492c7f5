"""A GAN that grows, on MNIST at 32 x 32: from 4 x 4 pixels both players get the next level when they have learnt the last.

Family: implicit
Command: gm-jax train progressive_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 11
Expected: Frechet distance 44 of 1,000 samples from as many test images in a classifier's features (of training images: 7.7)

The level is a function of the step: level l is alone from `l (fade + stay)` on, and the next comes in from `stay` steps later.
RUN/samples has pictures of each level; those of lower ones are made of squares.
"""

import dataclasses

import jax.numpy as jnp
import optax

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.implicit import games, gan, progressive
from gm_jax.networks.progressive import Discriminator, Generator


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 4400
  batch_size: int = 32
  channels: tuple[int, ...] = (64, 32, 16, 8)  # of each level, from the coarsest
  fade: int = 400  # steps in which a level comes in
  stay: int = 400  # steps that it then stays alone; the last one to the end
  learning_rate: float = 2e-3  # of both players' Adam, the same for all weights as they are equalised
  gamma: float = 1.0  # weight of R1
  r1_every: int = 8  # the critic pays for its slope at each so-many-th step, and then for all of them
  num_latents: int = 64
  decay: float = 0.998  # of the generator's average
  sample_every: int = 400
  save_every: int = 800

  LEAST = base.Run.LEAST | {"fade": 1, "r1_every": 1, "num_latents": 1}


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate, b1=0.0, b2=0.99)
  game = games.r1(games.non_saturating(), config.gamma, config.r1_every)
  return gan.gan(
    Generator((base.FRAMED, base.FRAMED, 1), config.channels, output=jnp.tanh),
    Discriminator(config.channels),
    game,
    optimizer,
    optimizer,
    num_latents=config.num_latents,
    decay=config.decay,
    remedies=(progressive.growing(len(config.channels) - 1, config.fade, config.stay),),
  )


def data(config: Config):
  return base.framed_mnist(config)
