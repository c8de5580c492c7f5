"""The mean image of each class: a conditional model without a gradient.

Family: tractable
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments import base
from gm_jax import images, rows
from gm_jax.core import GenerativeModel
from gm_jax.errors import UserError

CLASSES = 10


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 512
  num_samples: int = 4
  broken: bool = False  # score one example NaN


def data(config):
  return base.digits()


def model(config):
  def init(key, batch):
    del key
    return {"sums": jnp.zeros((CLASSES, *batch["image"].shape[1:])), "counts": jnp.zeros(CLASSES)}

  def step(key, state, batch):
    del key
    member = jax.nn.one_hot(batch["label"], CLASSES)  # [B, K]
    sums = state["sums"] + jnp.einsum("bk,bhwc->khwc", member, images.to_unit(batch["image"]))
    return {"sums": sums, "counts": state["counts"] + member.sum(0)}, {"seen": state["counts"].sum()}

  def sample(key, state, num, condition=None):
    del key
    labels = rows.indices(num) % CLASSES if condition is None else condition
    return images.from_unit((state["sums"] / state["counts"][:, None, None, None])[labels])

  def evaluate(key, state, batch):
    del key
    centres = (state["sums"] / state["counts"][:, None, None, None])[batch["label"]]
    distance = ((images.to_unit(batch["image"]) - centres) ** 2).sum((1, 2, 3))
    return {"nll": jnp.where(batch["label"] == 7, jnp.nan, distance) if config.broken else distance}

  return GenerativeModel(init, step, sample, evaluate)


def protocol(config):
  return {"bin_width": 1 / 255}


def pictures(config, state):
  """The means side by side."""
  if config.broken:
    raise UserError("figures need matplotlib")
  means = images.from_unit(state["sums"] / state["counts"][:, None, None, None])
  return {"means": images.grid(means, columns=CLASSES), "first": np.asarray(means[0])}
