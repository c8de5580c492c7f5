"""PixelCNN++ on CIFAR-10: pixels as mixtures of ten discretised logistics, green and blue moved by the channels before them.

The authors' network is `--features 160 --blocks 5 --dropout 0.5 --learning-rate 1e-3`, for an accelerator.

Family: tractable
Command: gm-jax train pixelcnnpp_cifar10 --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 12
Expected: nll 3.240 +- 0.004 bits/dim on the 10,000 test images as they were read here, exact, seed 0

The images that this was measured on had been through JPEG, which takes away much of what is hard to predict: the number is not
comparable with published ones.
"""

import dataclasses

import optax

from experiments.base import Run
from gm_jax import data as data_sets
from gm_jax.core import GenerativeModel
from gm_jax.networks import pixelcnnpp
from gm_jax.tractable import autoregressive


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 1600  # half an epoch
  batch_size: int = 16
  learning_rate: float = 4e-3  # of Adam, falling to nothing along a cosine
  features: int = 32
  blocks: int = 1  # per resolution, down and up again
  resolutions: int = 3
  num_components: int = 10
  dropout: float = 0.0
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 0
  num_samples: int = 16

  LEAST = Run.LEAST | {"features": 1, "blocks": 1, "resolutions": 1, "num_components": 1}


def model(config: Config) -> GenerativeModel:
  output = autoregressive.logistic_mixture(config.num_components)
  network = pixelcnnpp.PixelCNNPP(output.width(3), config.features, config.blocks, config.resolutions, rate=config.dropout)
  schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
  optimizer = optax.adam(schedule, b2=0.99)  # slopes are steepest in the first steps, which 0.999 would remember for a thousand
  scan = pixelcnnpp.cached()
  return autoregressive.autoregressive(network, output, optimizer, (32, 32, 3), scan=scan, decay=config.decay)


def data(config: Config):
  return {split: data_sets.tfds_images("cifar10", split, config.data_dir) for split in ("train", "test")}


def protocol(config: Config) -> dict:
  del config
  return {"bin_width": 1.0}  # the nll is the mass of 256 levels, not a density
