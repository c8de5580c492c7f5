"""VQ-VAE on statically binarised MNIST: 7 x 7 codes of 64, then a gated PixelCNN over them, in one run.

Family: approximate
Command: gm-jax train vqvae_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 5
Expected: 50 of 64 codes in use (perplexity), a bound of 153.9 +- 0.3 nats; a classifier is 84 % sure of 1,000 samples; seed 0

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
  steps: int = 4000
  first_steps: int = 1500  # of them, for the autoencoder; what follows is for the prior
  batch_size: int = 64
  learning_rate: float = 1e-3  # of Adam in stage one
  prior_learning_rate: float = 2e-3  # of Adam in stage two, falling to nothing along a cosine
  channels: tuple[int, ...] = (16, 32)  # of the encoder's layers; the decoder's are the same in turn
  features: int = 16  # of a code's vector
  num_codes: int = 64
  commitment: float = 0.25
  prior_features: int = 32
  prior_blocks: int = 5
  decay: float = 0.999  # of the averages of the parameters
  save_every: int = 1000
  sample_every: int = 1000

  LEAST = Run.LEAST | {"first_steps": 1, "features": 1, "num_codes": 2, "prior_features": 1}


def module(config: Config) -> vqvae.VQVAE:
  encoder, decoder = Down(config.features, config.channels), Up(1, config.channels[::-1])
  codebook = ByAverages(config.num_codes, config.commitment)
  return vqvae.VQVAE(encoder, decoder, codebook, vae.bernoulli(), (7, 7))


def model(config: Config) -> GenerativeModel:
  vq = module(config)
  first = vqvae.vqvae(vq, optax.adam(config.learning_rate), decay=config.decay)
  falling = optax.cosine_decay_schedule(config.prior_learning_rate, max(1, config.steps - config.first_steps))
  sizes = dict(features=config.prior_features, blocks=config.prior_blocks)
  prior = two_stage.code_prior(vq.levels[0], optax.adam(falling), **sizes, decay=config.decay)
  return two_stage.two_stage(vq, first, [prior], first_steps=config.first_steps)


def data(config: Config):
  return binarized_mnist(config)


def pictures(config: Config, state) -> dict:
  return {"reconstructions": code_pictures.reconstructed(module(config), state.first, data(config)["test"])}
