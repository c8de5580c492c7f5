"""Variational autoencoder on handwritten digits, 8 x 8, black and white drawn anew at every step.

Family: approximate
Command: gm-jax train vae_digits
Hardware: 2 CPU cores
Minutes: 0.6
Expected: nll 22.6 +- 0.2 nats on the 299 test images (200 importance samples, dynamic binarisation)
"""

import dataclasses

import optax

from experiments import base
from gm_jax import data as sources
from gm_jax.approximate import vae
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 3000
  learning_rate: float = 2e-3  # of Adam
  num_hidden: int = 256  # units of the hidden layer, on either side
  num_latents: int = 10
  decay: float = 0.995  # of the average of the parameters
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20


def module(config: Config) -> vae.VAE:
  hidden = (config.num_hidden,)
  return vae.VAE(FlatEncoder(hidden), FlatDecoder(hidden, (8, 8, 1)), vae.bernoulli(), config.num_latents)


def model(config: Config) -> GenerativeModel:
  return vae.vae(module(config), optax.adam(config.learning_rate), decay=config.decay)


def data(config: Config):
  del config
  return {split: sources.binarized(digits, "dynamic") for split, digits in base.digits().items()}


def measure(config: Config):
  return vae.measure(module(config), config.num_importance_samples)
