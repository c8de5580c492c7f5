"""PixelCNN on statically binarised MNIST: residual blocks of causal convolutions, drawn from remembered activations.

Family: tractable
Command: gm-jax train pixelcnn_mnist --data-dir DIR
Hardware: 2 CPU cores
Minutes: not measured yet
Expected: not measured yet
"""

import dataclasses

import optax

from experiments.base import Run, binarized_mnist
from gm_jax.core import GenerativeModel
from gm_jax.networks import pixelcnn
from gm_jax.tractable import autoregressive, sequential


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 2000  # 2.6 epochs
  batch_size: int = 64
  learning_rate: float = 1e-3  # of Adam, falling to nothing along a cosine
  features: int = 64
  blocks: int = 5
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 1000

  LEAST = Run.LEAST | {"features": 2}


def network(config: Config) -> pixelcnn.PixelCNN:
  return pixelcnn.PixelCNN(outputs=1, features=config.features, blocks=config.blocks)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  return autoregressive.autoregressive(
    network(config), autoregressive.bernoulli(), optimizer, (28, 28, 1), scan=pixelcnn.cached(), decay=config.decay
  )


def conditionals(config: Config) -> sequential.Sequential:
  return sequential.network(network(config), autoregressive.bernoulli(), (28, 28, 1), pixelcnn.cached())


def data(config: Config):
  return binarized_mnist(config)
