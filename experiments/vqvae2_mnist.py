"""VQ-VAE-2 on statically binarised MNIST: 14 x 14 codes under 7 x 7, then a prior over each level, in one run.

Family: approximate
Command: gm-jax train vqvae2_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 6
Expected: 52 of 64 and 12.6 of 16 codes in use (perplexity); a classifier is 79 % sure of 1,000 samples; seed 0

The picture "reconstructions" has test digits above what their codes make of them.
"""

import dataclasses

import optax

from experiments import code_pictures
from experiments.base import Run, binarized_mnist
from gm_jax import two_stage
from gm_jax.approximate import vae, vqvae
from gm_jax.core import GenerativeModel
from gm_jax.networks.feature_maps import Down, Up
from gm_jax.networks.quantizer import ByAverages


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 3500
  first_steps: int = 1500  # of them, for the autoencoder; what follows is for the priors
  batch_size: int = 32
  learning_rate: float = 1e-3  # of Adam in stage one
  prior_learning_rate: float = 2e-3  # of Adam in stage two, falling to nothing along a cosine
  channels: int = 32  # of the maps between
  features: int = 16  # of a code's vector
  num_codes: int = 64  # of the top
  num_bottom_codes: int = 16
  commitment: float = 0.25
  prior_features: int = 24
  prior_blocks: int = 4
  decay: float = 0.999  # of the averages of the parameters
  save_every: int = 500
  sample_every: int = 500

  LEAST = Run.LEAST | dict.fromkeys(("first_steps", "channels", "features", "prior_features"), 1)
  LEAST |= {"num_codes": 2, "num_bottom_codes": 2}


def module(config: Config) -> vqvae.VQVAE2:
  wide = (config.channels,)
  encoders = Down(config.channels, wide), Down(config.features, wide)
  decoders = Up(config.channels, wide), Up(1, wide)
  codebooks = ByAverages(config.num_codes, config.commitment), ByAverages(config.num_bottom_codes, config.commitment)
  return vqvae.VQVAE2(*encoders, *decoders, *codebooks, vae.bernoulli(), (7, 7), (14, 14), config.features)


def model(config: Config) -> GenerativeModel:
  vq = module(config)
  first = vqvae.vqvae(vq, optax.adam(config.learning_rate), decay=config.decay)
  falling = optax.cosine_decay_schedule(config.prior_learning_rate, max(1, config.steps - config.first_steps))
  sizes = dict(features=config.prior_features, blocks=config.prior_blocks, decay=config.decay)
  top, bottom = vq.levels
  over_top = two_stage.code_prior(top, optax.adam(falling), **sizes)
  over_bottom = two_stage.code_prior(bottom, optax.adam(falling), above=top, **sizes)
  return two_stage.two_stage(vq, first, [over_top, over_bottom], first_steps=config.first_steps)


def data(config: Config):
  return binarized_mnist(config)


def pictures(config: Config, state) -> dict:
  return {"reconstructions": code_pictures.reconstructed(module(config), state.first, data(config)["test"])}
