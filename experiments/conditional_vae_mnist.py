"""A VAE of MNIST given the class: what the digit is, is said; how it is written, is in z.

Family: approximate
Command: gm-jax train conditional_vae_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 5
Expected: nll 86.07 +- 0.24 nats given the label (200 importance samples, a bound 89.86), dynamic binarisation, seed 0

The picture "classes" has a column for each digit, and "styles" the same z in each row.  `gm-jax classify RUN` asks under which
label an image is likeliest.
"""

import dataclasses

import optax

from experiments import base, latent_pictures, shown
from gm_jax import data as datasets
from gm_jax.approximate import vae
from gm_jax.approximate.conditional_vae import ConditionalVAE
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 20_000
  batch_size: int = 100
  learning_rate: float = 1e-3  # of Adam
  hidden: tuple[int, ...] = (400, 400)  # units of the hidden layers, on either side
  num_latents: int = 20
  decay: float = 0.9995  # of the average of the parameters
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20
  save_every: int = 5000
  sample_every: int = 5000

  LEAST = base.Run.LEAST | {"num_latents": 1}


def module(config: Config) -> ConditionalVAE:
  encoder, decoder = FlatEncoder(config.hidden), FlatDecoder(config.hidden, (28, 28, 1))
  return ConditionalVAE(encoder, decoder, vae.bernoulli(), config.num_latents, num_classes=10)


def model(config: Config) -> GenerativeModel:
  return vae.vae(module(config), optax.adam(config.learning_rate), decay=config.decay)


def data(config: Config):
  return {split: datasets.binarized(dataset, "dynamic") for split, dataset in base.mnist(config).items()}


def measure(config: Config):
  return vae.measure(module(config), config.num_importance_samples)


def pictures(config: Config, state) -> dict:
  styles = latent_pictures.styles(module(config), state, 10)
  return {"classes": shown.of_classes(model(config), state, 10), "styles": styles}
