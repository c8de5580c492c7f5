"""Bayesian network on statically binarised MNIST: each pixel knows its nearest causal neighbours, by one table per pixel.

With `--parents` 2, 4 and 6 it scores 118.70, 104.35 and 101.88; ten parents and `--back-off 4` score 97.51.

Family: tractable
Command: gm-jax train neighbourhood_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 0.2
Expected: nll 98.02 +- 0.23 nats on the 10,000 test images, exact, with 10 parents
"""

import dataclasses

from experiments import base
from gm_jax.core import GenerativeModel
from gm_jax.errors import UserError
from gm_jax.tractable import counting, sequential


@dataclasses.dataclass(frozen=True)
class Config(base.Counting):
  parents: int = 10  # causal neighbours that a pixel knows, nearest first
  back_off: tuple[int, ...] = ()  # numbers of parents at which counts are backed off on the way to none; (4,) is better
  weight: float = 1.0  # of the lower order in each table, in examples

  LEAST = base.Run.LEAST | {"weight": 1e-9}

  def __post_init__(self):
    super().__post_init__()
    most = len(counting.NEIGHBOURS)
    if self.parents > most:
      raise UserError(f"--parents is {self.parents}; take a number from 0 to {most}")
    if list(self.back_off) != sorted({*self.back_off}) or not all(0 < order < self.parents for order in self.back_off):
      raise UserError(f"--back-off is {self.back_off}; take increasing numbers between 0 and --parents, {self.parents}")


def model(config: Config) -> GenerativeModel:
  parents = counting.neighbourhood((28, 28, 1), config.parents)
  return counting.counted(parents, weight=config.weight, back_off=config.back_off)


def conditionals(config: Config) -> sequential.Sequential:
  parents = counting.neighbourhood((28, 28, 1), config.parents)
  return sequential.tables(lambda state: counting.fit(parents, state, weight=config.weight, back_off=config.back_off))


def data(config: Config):
  return base.binarized_mnist(config)
