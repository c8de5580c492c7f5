"""Independent pixels on statically binarised MNIST: the floor, and all that a factorised density can say.

Family: tractable
Command: gm-jax train factorised_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 0.2
Expected: nll 205.793 +- 0.454 nats on the 10,000 test images, exact
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
  return counting.counted(counting.factorised((28, 28, 1)))


def conditionals(config: Config) -> sequential.Sequential:
  del config
  return sequential.tables(lambda state: counting.fit(counting.factorised((28, 28, 1)), state))


def data(config: Config):
  return base.binarized_mnist(config)
