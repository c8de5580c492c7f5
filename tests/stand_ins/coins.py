"""Black and white digits, each pixel told by two before it.

Family: tractable
"""

from dataclasses import dataclass

from experiments import base
from gm_jax import data as data_sets
from gm_jax.tractable import counting, sequential

PARENTS = counting.neighbourhood((8, 8, 1), 2)


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 512
  num_samples: int = 4
  weight: float = 1.0
  dynamic: bool = False


def data(config):
  mode = "dynamic" if config.dynamic else "static"
  return {split: data_sets.binarized(dataset, mode) for split, dataset in base.digits().items()}


def model(config):
  return counting.counted(PARENTS, weight=config.weight)


def conditionals(config):
  return sequential.tables(lambda state: counting.fit(PARENTS, state, weight=config.weight))
