"""MADE in every order on handwritten digits, 8 x 8, statically binarised: any hole in an image can be filled.

Family: tractable
Command: gm-jax train made_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 0.6
Expected: nll 23.93 +- 0.18 nats on the 299 test images (the mixture of 16 orders), seed 0

The picture "completions" has test digits, what is known of them, and four completions of each, drawn given that.
"""

import dataclasses

import jax
import numpy as np
import optax

from experiments import base
from gm_jax import data as datasets
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.networks.masked import MaskedMLP
from gm_jax.tractable import made


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 6000
  batch_size: int = 128
  learning_rate: float = 2e-3  # of Adam, falling to zero along a cosine
  hidden: tuple[int, ...] = (256, 256)  # units of the hidden layers
  num_orders: int = 16  # of the mixture that is evaluated and drawn from
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 2000
  sample_every: int = 2000

  LEAST = base.Run.LEAST | {"num_orders": 1}


def network(config: Config) -> MaskedMLP:
  return MaskedMLP(64, config.hidden, direct=True)


def model(config: Config) -> GenerativeModel:
  orders = made.any_order(network(config), made.ensemble(jax.random.key(config.seed), network(config), config.num_orders))
  rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
  return made.made(network(config), orders, optax.adam(rate), (8, 8, 1), decay=config.decay)


def data(config: Config):
  del config
  return {split: datasets.binarized(dataset, "static") for split, dataset in base.digits().items()}


def pictures(config: Config, state) -> dict:
  """Ten test digits each without their lower half, right half, middle, and three pixels of four."""
  digits = data(config)["test"].arrays["image"][:40]
  row, column = np.mgrid[:8, :8]
  middle = (abs(row - 3.5) < 2) & (abs(column - 3.5) < 2)
  scattered = np.random.default_rng(0).random((8, 8)) < 0.25
  known = np.stack([row < 4, column < 4, ~middle, scattered]).repeat(10, 0)[..., None]  # [40, 8, 8, 1]
  rows = [digits, np.where(known, digits, 128)]
  for index in range(4):
    rows.append(made.complete(network(config), state.average.variables, jax.random.key(index), digits, known))
  # Ten digits to a line, six lines to a kind of hole.
  lines = np.stack([np.asarray(line).reshape(4, 10, 8, 8, 1) for line in rows], 1)
  return {"completions": images.grid(lines.reshape(-1, 8, 8, 1), columns=10).repeat(3, 0).repeat(3, 1)}
