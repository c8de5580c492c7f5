"""Gated PixelCNN on statically binarised MNIST: two stacks that together see every pixel before.

Family: tractable
Command: gm-jax train gated_pixelcnn_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 10
Expected: nll 86.63 +- 0.21 nats on the 10,000 test images, exact, seed 0

The picture "completions" has test digits, their upper halves, and four completions of each.
"""

import dataclasses

import optax

from experiments import shown
from experiments.base import Run, binarized_mnist
from gm_jax.core import GenerativeModel
from gm_jax.networks import pixelcnn
from gm_jax.tractable import autoregressive, sequential


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 1500  # one epoch
  batch_size: int = 32
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  features: int = 32
  blocks: int = 5
  first_reach: int = 7  # pixels that the first kernels see to either side and above
  dropout: float = 0.0
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 500

  LEAST = Run.LEAST | {"features": 1}


def network(config: Config) -> pixelcnn.GatedPixelCNN:
  sizes = dict(features=config.features, blocks=config.blocks, first_reach=config.first_reach)
  return pixelcnn.GatedPixelCNN(outputs=1, **sizes, rate=config.dropout, positions=True)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  return autoregressive.autoregressive(
    network(config), autoregressive.bernoulli(), optimizer, (28, 28, 1), scan=pixelcnn.gated_cached(), decay=config.decay
  )


def conditionals(config: Config) -> sequential.Sequential:
  return sequential.network(network(config), autoregressive.bernoulli(), (28, 28, 1), pixelcnn.gated_cached())


def data(config: Config):
  return binarized_mnist(config)


def pictures(config: Config, state) -> dict:
  return {"completions": shown.half_hidden(conditionals(config), state, data(config)["test"])}
