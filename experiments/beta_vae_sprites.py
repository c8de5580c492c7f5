"""A beta-VAE of drawn shapes whose factors are known: does each latent come to stand for one of them?

Family: approximate
Command: gm-jax train beta_vae_sprites
Hardware: 2 CPU cores, shared with other work
Minutes: 3
Expected: MIG 0.029, 8 of 10 latents active, nll_bound 44.9 +- 0.4 nats; with --beta 1, 0.023, 10 and 33.3; seed 0

`python -m experiments.disentangled RUN...` prints MIG, DCI and active units; the picture "walks" changes one latent at a time.
"""

import dataclasses

import optax

from experiments import base, latent_pictures
from gm_jax import data as datasets
from gm_jax.approximate import vae
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 10_000
  batch_size: int = 100
  learning_rate: float = 5e-4  # of Adam
  beta: float = 4.0  # weight of the rate in training
  hidden: tuple[int, ...] = (400, 200)  # units of the hidden layers, on either side
  num_latents: int = 10
  decay: float = 0.999  # of the average of the parameters
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20
  save_every: int = 2500
  sample_every: int = 2500

  LEAST = base.Run.LEAST | {"num_latents": 1}


def module(config: Config) -> vae.VAE:
  encoder, decoder = FlatEncoder(config.hidden), FlatDecoder(config.hidden[::-1], (32, 32, 1))
  return vae.VAE(encoder, decoder, vae.bernoulli(), config.num_latents)


def model(config: Config) -> GenerativeModel:
  return vae.vae(module(config), optax.adam(config.learning_rate), beta=config.beta, decay=config.decay)


def data(config: Config):
  del config
  return {split: datasets.sprites(split) for split in ("train", "test")}


def measure(config: Config):
  return vae.measure(module(config), config.num_importance_samples)


def pictures(config: Config, state) -> dict:
  return latent_pictures.of_vae(module(config), state, data(config)["test"])
