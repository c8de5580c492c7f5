"""Digits by a GAN that learns next to nothing, in a moment; its generator starts as principal directions of the digits.

Family: implicit
"""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from experiments import base
from gm_jax import data as data_sets
from gm_jax.implicit import gan
from gm_jax.implicit import latents as laws
from gm_jax.networks.flat import Flatten
from gm_jax.networks.players import FlatCritic
from gm_jax.tasks import latents as tasks


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 32
  num_samples: int = 4
  num_latents: int = 6


def data(config):
  del config
  return base.digits()


@functools.cache
def principal(num: int):
  """Of the digits, a little inside of [-1, 1] and before a tanh: mean [64] and directions as long as their deviations."""
  x = np.arctanh(0.9 * (data_sets.digits("train").arrays["image"].reshape(-1, 64) / np.float32(127.5) - 1))
  _, deviations, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
  return x.mean(0), (deviations[:, None] * directions)[:num] / np.sqrt(np.float32(len(x)))


class Generator(nn.Module):
  """tanh(mean + z directions), so that no two latents make one image."""

  num_latents: int

  @nn.compact
  def __call__(self, z, train: bool):
    mean, directions = principal(self.num_latents)
    mean = self.param("mean", lambda key: jnp.asarray(mean))
    directions = self.param("directions", lambda key: jnp.asarray(directions))
    return jnp.tanh(mean[None] + z @ directions).reshape(-1, 8, 8, 1)


def model(config):
  optimizer, players = optax.adam(1e-3), (Generator(config.num_latents), FlatCritic((4,)))
  return gan.gan(*players, gan.non_saturating(), optimizer, optimizer, num_latents=config.num_latents)


def latents(config):
  return tasks.of_gan(Generator(config.num_latents), laws.normal(config.num_latents), encoder=Flatten())
