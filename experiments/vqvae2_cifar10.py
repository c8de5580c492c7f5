"""VQ-VAE-2 of CIFAR-10: 16 x 16 codes under 8 x 8, of 128 each; a prior over the top given the class, and one over the bottom.

An accelerator has time for `--channels 128 --num-codes 256 --num-bottom-codes 256 --prior-features 128 --prior-blocks 12
--batch-size 128 --first-steps 50000 --steps 150000`.

Family: approximate
Command: gm-jax train vqvae2_cifar10 --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 9.6
Expected: 108 of 128 codes in use on top, 89 of 128 below (perplexity); nll_bound 6.010 +- 0.004 bits/dim, codes and all; seed 0

The picture "reconstructions" has test images above what their codes make of them, "classes" a column of samples for each class.
"""

import dataclasses

import optax

from experiments import code_pictures, shown
from experiments.base import Run
from gm_jax import data as data_sets
from gm_jax import two_stage
from gm_jax.approximate import vae, vqvae
from gm_jax.core import GenerativeModel
from gm_jax.networks.feature_maps import Down, Up
from gm_jax.networks.quantizer import ByAverages


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 3000
  first_steps: int = 1500  # of them, for the autoencoder; what follows is for the priors
  batch_size: int = 32
  learning_rate: float = 1e-3  # of Adam in stage one
  prior_learning_rate: float = 2e-3  # of Adam in stage two, falling to nothing along a cosine
  channels: int = 32  # of the maps between
  features: int = 16  # of a code's vector
  num_codes: int = 128  # of the top
  num_bottom_codes: int = 128
  commitment: float = 0.25
  prior_features: int = 24
  prior_blocks: int = 4
  decay: float = 0.999  # of the averages of the parameters
  save_every: int = 500
  sample_every: int = 500
  num_samples: int = 16

  LEAST = Run.LEAST | dict.fromkeys(("first_steps", "channels", "features", "prior_features"), 1)
  LEAST |= {"num_codes": 2, "num_bottom_codes": 2}


def module(config: Config) -> vqvae.VQVAE2:
  wide, likelihood = (config.channels,), vae.gaussian()
  encoders = Down(config.channels, wide), Down(config.features, wide)
  decoders = Up(config.channels, wide), Up(3 * likelihood.channels, wide)
  codebooks = ByAverages(config.num_codes, config.commitment), ByAverages(config.num_bottom_codes, config.commitment)
  return vqvae.VQVAE2(*encoders, *decoders, *codebooks, likelihood, (8, 8), (16, 16), config.features)


def model(config: Config) -> GenerativeModel:
  vq = module(config)
  first = vqvae.vqvae(vq, optax.adam(config.learning_rate), decay=config.decay)
  falling = optax.cosine_decay_schedule(config.prior_learning_rate, max(1, config.steps - config.first_steps))
  sizes = dict(features=config.prior_features, blocks=config.prior_blocks, decay=config.decay)
  top, bottom = vq.levels
  over_top = two_stage.code_prior(top, optax.adam(falling), num_classes=10, **sizes)
  over_bottom = two_stage.code_prior(bottom, optax.adam(falling), above=top, **sizes)
  return two_stage.two_stage(vq, first, [over_top, over_bottom], first_steps=config.first_steps)


def data(config: Config):
  return {split: data_sets.tfds_images("cifar10", split, config.data_dir) for split in ("train", "test")}


def protocol(config: Config) -> dict:
  del config
  return {"bin_width": 1.0}  # the nll is the mass of 256 levels, not a density


def pictures(config: Config, state) -> dict:
  reconstructed = code_pictures.reconstructed(module(config), state.first, data(config)["test"])
  return {"reconstructions": reconstructed, "classes": shown.of_classes(model(config), state, 10)}
