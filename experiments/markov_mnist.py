"""A Markov chain along the rows of statically binarised MNIST: each pixel knows the one before it.

Family: tractable
Command: gm-jax train markov_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 0.2
Expected: nll 145.360 +- 0.256 nats on the 10,000 test images, exact
"""

import dataclasses

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.tractable import counting, sequential


@dataclasses.dataclass(frozen=True)
class Config(base.Counting):
  pass


def model(config: Config) -> GenerativeModel:
  del config
  return counting.counted(counting.markov_chain((28, 28, 1)))


def conditionals(config: Config) -> sequential.Sequential:
  del config
  return sequential.tables(lambda state: counting.fit(counting.markov_chain((28, 28, 1)), state))


def data(config: Config):
  return base.binarized_mnist(config)
