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
from gm_jax.core import GenerativeModel
from gm_jax.networks.masked import MaskedMLP
from gm_jax.tasks import completion as tasks
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


def completion(config: Config) -> tasks.Completion:
  return tasks.in_any_order(network(config), config.num_orders)


def pictures(config: Config, state) -> dict:
  """Ten test digits each without their lower half, right half, middle, and three pixels of four."""
  digits, sheets = data(config)["test"].arrays["image"], []
  for index, name in enumerate(("top", "left", "around", "scattered")):
    chosen, known = digits[10 * index : 10 * index + 10], tasks.region(name, (8, 8))
    drawn = tasks.several(completion(config), state, index, chosen, known, 4)
    sheets.append(tasks.sheet(chosen, known, drawn))
  return {"completions": np.concatenate(sheets).repeat(3, 0).repeat(3, 1)}
