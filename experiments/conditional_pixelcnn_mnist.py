"""Gated PixelCNN of MNIST given the class: digits to order, and a classifier by Bayes' rule.

Family: tractable
Command: gm-jax train conditional_pixelcnn_mnist --data-dir DIR
Hardware: 2 CPU cores
Minutes: not measured yet
Expected: not measured yet

The picture "classes" has a column for each digit.  `gm-jax classify RUN` asks under which label an image is likeliest.
"""

import dataclasses

import optax

from experiments import base, shown
from gm_jax import data as datasets
from gm_jax.core import GenerativeModel
from gm_jax.networks import pixelcnn
from gm_jax.tractable import autoregressive


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 1500
  batch_size: int = 32
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  features: int = 24
  blocks: int = 5
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 500

  LEAST = base.Run.LEAST | {"features": 1}


def model(config: Config) -> GenerativeModel:
  sizes = dict(features=config.features, blocks=config.blocks, first_reach=7)
  network = pixelcnn.GatedPixelCNN(outputs=1, **sizes, num_classes=10, positions=True)
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  scan, shape = pixelcnn.gated_cached(), (28, 28, 1)
  return autoregressive.autoregressive(
    network, autoregressive.bernoulli(), optimizer, shape, scan=scan, num_classes=10, decay=config.decay
  )


def data(config: Config):
  return {split: datasets.binarized(dataset, "dynamic") for split, dataset in base.mnist(config).items()}


def pictures(config: Config, state) -> dict:
  return {"classes": shown.of_classes(model(config), state, 10)}
