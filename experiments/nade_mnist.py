"""NADE on statically binarised MNIST, at a size that two cores can walk through.

Family: tractable
Command: gm-jax train nade_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 4.3
Expected: nll 92.92 +- 0.24 nats on the 10,000 test images, seed 0

100 hidden units and 16 epochs.  The published 88.33 nats are of 500 hidden units trained for much longer, which takes an
accelerator and has not been tried here.
"""

import dataclasses

import optax

from experiments.base import Run, binarized_mnist
from gm_jax.core import GenerativeModel
from gm_jax.tractable import sequential
from gm_jax.tractable.nade import NADE, nade


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 4000  # 16 epochs
  batch_size: int = 200
  learning_rate: float = 1e-2  # of Adam, falling to zero along a cosine
  num_hidden: int = 100
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 1000
  sample_every: int = 1000

  LEAST = Run.LEAST | {"num_hidden": 1}


def model(config: Config) -> GenerativeModel:
  rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
  return nade(NADE(784, config.num_hidden), optax.adam(rate), (28, 28, 1), decay=config.decay)


def conditionals(config: Config) -> sequential.Sequential:
  return sequential.flat(NADE(784, config.num_hidden), (28, 28, 1))


def data(config: Config):
  return binarized_mnist(config)
