"""An autoencoder of MNIST with a narrow code, beside the principal directions of the same number.

Family: reconstruction
Command: gm-jax train autoencoder_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 1.3
Expected: PSNR 21.42 +- 0.02 dB on the 10,000 test images by codes of 32 numbers (as many principal directions: 18.5), seed 0

`gm-jax restore RUN` sends test images through the code and back, and does the same with principal directions.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import optax

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder, Flatten
from gm_jax.reconstruction import autoencoder, penalties
from gm_jax.tasks import restoration as tasks

ERRORS = {
  "squared": autoencoder.squared_error(),
  "absolute": autoencoder.absolute_error(),
  "cross-entropy": autoencoder.cross_entropy(),
}


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 6000
  batch_size: int = 128
  learning_rate: float = 1e-3  # of Adam, falling to nothing along a cosine
  num_codes: int = 32
  hidden: tuple[int, ...] = (512, 256)  # units of the encoder's hidden layers; none for a linear autoencoder
  error: Literal["squared", "absolute", "cross-entropy"] = "squared"
  sparse: float = 0.0  # weight of the distance of each unit's rate from a twentieth; codes are then rates
  contractive: float = 0.0  # weight of the squared Jacobian of the code
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 2000
  sample_every: int = 2000

  LEAST = base.Run.LEAST | {"num_codes": 1}


def module(config: Config) -> autoencoder.Autoencoder:
  encoder = FlatEncoder(config.hidden) if config.hidden else Flatten()
  decoder = FlatDecoder(config.hidden[::-1], (28, 28, 1))
  code = nn.sigmoid if config.sparse else lambda z: z
  return autoencoder.Autoencoder(encoder, decoder, config.num_codes, ERRORS[config.error], activation=code)


def model(config: Config) -> GenerativeModel:
  weights = config.sparse, config.contractive
  asked = penalties.kl_to_rate(0.05, config.sparse), penalties.contractive(config.contractive)
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  paid = tuple(penalty for penalty, weight in zip(asked, weights) if weight)
  return autoencoder.autoencoder(module(config), optimizer, penalties=paid, decay=config.decay)


def data(config: Config):
  return base.mnist(config)


def restorer(config: Config) -> tasks.Restoration:
  train = data(config)["train"].arrays["image"][:10_000]
  through = lambda state, x: autoencoder.reconstruct(module(config), state, x)
  baselines = {f"{config.num_codes} principal directions": tasks.principal(train, config.num_codes)}
  return tasks.Restoration(lambda key, x: x, through, baselines)


def features(config: Config):
  return lambda state, pixels: autoencoder.encode(module(config), state, pixels)
