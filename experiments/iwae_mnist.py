"""Importance weighted autoencoder on statically binarised MNIST: the networks of the paper, several draws of z for each image.

Family: approximate
Command: gm-jax train iwae_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 10
Expected: nll 95.28 +- 0.25 nats (200 importance samples) on the 10,000 test images, seed 0; with --num-draws 1, a VAE, 98.02

That is after 10 epochs.  A step with 50 draws costs six of the plain bound's: in the same ten minutes `vae_mnist` sees ten
times as many images, and is ahead.

Evaluation is by the plain bound and by `nll` of importance samples, whichever the objective; the picture "walks" changes one
latent at a time, the most used first.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import optax

from experiments import base, latent_pictures
from gm_jax.approximate import importance, vae
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder

# Objectives by the draws for each image, and the groups that some of them put the draws in.
OBJECTIVES = {
  "iwae": lambda draws, groups: importance.iwae(draws),
  "miwae": lambda draws, groups: importance.miwae(groups, draws),
  "piwae": lambda draws, groups: importance.piwae(groups, draws),
  "ciwae": lambda draws, groups: importance.ciwae(1 / groups, draws),
  "stl": lambda draws, groups: importance.sticking_the_landing(draws),
  "dreg": lambda draws, groups: importance.doubly_reparameterized(draws),
}


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 25_000  # 10 epochs
  batch_size: int = 20
  learning_rate: float = 1e-3  # of Adam
  objective: Literal["iwae", "miwae", "piwae", "ciwae", "stl", "dreg"] = "iwae"
  num_draws: int = 50  # of z for each image, in each group
  num_groups: int = 2  # of draws, for miwae and piwae; the plain bound's share in ciwae is one over it
  hidden: tuple[int, ...] = (200, 200)  # units of the hidden layers, on either side
  num_latents: int = 50
  decay: float = 0.9998  # of the average of the parameters
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20
  save_every: int = 5000
  sample_every: int = 5000

  LEAST = base.Run.LEAST | {"num_draws": 1, "num_groups": 1, "num_latents": 1}


def module(config: Config) -> vae.VAE:
  encoder, decoder = FlatEncoder(config.hidden, nn.tanh), FlatDecoder(config.hidden, (28, 28, 1), nn.tanh)
  return vae.VAE(encoder, decoder, vae.bernoulli(), config.num_latents)


def model(config: Config) -> GenerativeModel:
  objective = OBJECTIVES[config.objective](config.num_draws, config.num_groups)
  return vae.vae(module(config), optax.adam(config.learning_rate), objective=objective, decay=config.decay)


def data(config: Config):
  return base.binarized_mnist(config)


def measure(config: Config):
  return vae.measure(module(config), config.num_importance_samples)


def pictures(config: Config, state) -> dict:
  return latent_pictures.of_vae(module(config), state, data(config)["test"])
