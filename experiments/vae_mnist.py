"""Variational autoencoder on statically binarised MNIST: three matrix products each way, 40 latents.

Family: approximate
Command: gm-jax train vae_mnist --data-dir DIR
Hardware: 2 CPU cores
Minutes: 6.5
Expected: nll 90.34 +- 0.25 nats (200 importance samples, a bound 95.70 +- 0.27) on the 10,000 test images, seed 0

A classifier of real MNIST (99.1 % right on its test split; experiments/judge.py) is 85 % sure of 1,000 samples, on average, and
sees every class in at least 7.2 % of them.

`gm-jax picture RUN` shows the way between images, along single latents, and from thin to bold; with `--num-latents 2` all of
the latent plane, "manifold".
"""

import dataclasses

import optax

from experiments import latent_pictures
from experiments.base import Run, binarized_mnist
from gm_jax.approximate import vae
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 50_000  # 100 epochs
  batch_size: int = 100
  learning_rate: float = 1e-3  # of Adam
  beta: float = 1.0  # weight of the rate; other values train another objective, evaluation is always the bound
  hidden: tuple[int, ...] = (500, 500)  # units of the hidden layers, on either side
  num_latents: int = 40
  decay: float = 0.9998  # of the average of the parameters, which stands in for a falling learning rate
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20
  save_every: int = 5000
  sample_every: int = 10_000


def module(config: Config) -> vae.VAE:
  encoder, decoder = FlatEncoder(config.hidden), FlatDecoder(config.hidden, (28, 28, 1))
  return vae.VAE(encoder, decoder, vae.bernoulli(), config.num_latents)


def model(config: Config) -> GenerativeModel:
  return vae.vae(module(config), optax.adam(config.learning_rate), beta=config.beta, decay=config.decay)


def data(config: Config):
  return binarized_mnist(config)


def measure(config: Config):
  return vae.measure(module(config), config.num_importance_samples)


def pictures(config: Config, state) -> dict:
  return latent_pictures.of_vae(module(config), state, data(config)["test"])
