"""Chow-Liu tree on statically binarised MNIST: each pixel knows one other, and the pairs are chosen by mutual information.

Family: tractable
Command: gm-jax train chow_liu_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 0.2
Expected: nll 134.997 +- 0.275 nats on the 10,000 test images, exact
"""

import dataclasses

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.tractable import chow_liu, sequential


@dataclasses.dataclass(frozen=True)
class Config(base.Counting):
  pass


def model(config: Config) -> GenerativeModel:
  del config
  return chow_liu.chow_liu()


def conditionals(config: Config) -> sequential.Sequential:
  del config
  return sequential.tables(chow_liu.fit)


def data(config: Config):
  return base.binarized_mnist(config)
