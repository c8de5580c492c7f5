"""A VAE of the digits that trains in a moment.

Family: approximate
Command: gm-jax train tiny
Hardware: 2 CPU cores
Minutes: 0.1
Expected: dots
"""

from dataclasses import dataclass
from typing import Literal

import optax

from experiments import base
from gm_jax import data as sources
from gm_jax.approximate import vae
from gm_jax.networks.flat import FlatDecoder, FlatEncoder


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 4
  batch_size: int = 16
  save_every: int = 2
  num_samples: int = 4
  hidden: int = 8  # units
  learning_rate: float = 1e-3
  source: Literal["digits", "mnist", "folder"] = "digits"
  folder: str = "pictures"
  size: int = 8  # of a folder's pictures
  channels: int = 1


def data(config):
  if config.source == "folder":
    folder = lambda split: sources.picture_folder(config.folder, split, size=config.size, channels=config.channels)
    return {split: folder(split) for split in ("train", "test")}
  return base.mnist(config) if config.source == "mnist" else base.digits()


def model(config):
  shape = (config.size, config.size, config.channels)
  module = vae.VAE(FlatEncoder((config.hidden,)), FlatDecoder((config.hidden,), shape), vae.bernoulli(), num_latents=2)
  return vae.vae(module, optax.adam(config.learning_rate))
