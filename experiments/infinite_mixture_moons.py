"""An infinite mixture on two moons: a network bends a line of Gaussians, and log p(x) is an integral taken by quadrature.

`gm-jax evaluate` reports, beside "nll", "gap": log p_true(x) - log p_model(x) in nats, whose mean is KL(true || model).  Both
are taken with twice the nodes of training, so that nothing was learnt that lives between nodes.

Family: tractable
Command: gm-jax train infinite_mixture_moons
Hardware: 2 CPU cores, shared with other work
Minutes: 0.9
Expected: gap 0.0050 +- 0.0006 nats
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import optax

from experiments import base, laws
from gm_jax.core import GenerativeModel
from gm_jax.data import toys
from gm_jax.networks.mlp import MLP
from gm_jax.tractable import infinite_mixture

LAW, REACH = toys.two_moons(), 2.5


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 6000
  batch_size: int = 256
  num_points: int = 20_000  # in each split
  num_nodes: int = 400  # of the quadrature
  num_waves: int = 8  # the cosines of z that the network sees
  width: int = 64  # of its two hidden layers
  learning_rate: float = 3e-3  # at the start; it falls to zero along a cosine
  log_every: int = 500
  save_every: int = 2000
  sample_every: int = 0
  num_samples: int = 1000

  LEAST = base.Run.LEAST | {"num_points": 1, "num_nodes": 1, "num_waves": 1, "width": 1}


class Waves(nn.Module):
  """A network of cosines of z in [0, 1], [N, 1]: of z alone it would learn too smooth a line to reach both moons."""

  num_waves: int
  network: nn.Module

  def __call__(self, z):
    return self.network(jnp.cos(jnp.pi * jnp.arange(1, self.num_waves + 1)[None] * z))


def model(config: Config) -> GenerativeModel:
  return with_nodes(config, config.num_nodes)


def with_nodes(config: Config, num_nodes: int) -> GenerativeModel:
  decoder = infinite_mixture.MeanAndVariance(Waves(config.num_waves, MLP((config.width, config.width, 2 * 2))))
  module = infinite_mixture.InfiniteMixture(infinite_mixture.uniform(num_nodes), decoder, (1, 1, 2))
  return infinite_mixture.infinite_mixture(module, optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)))


def data(config: Config):
  return laws.splits(LAW, config.num_points, ("train", "validation", "test"))


def measure(config: Config):
  return laws.gap(with_nodes(config, 2 * config.num_nodes).evaluate)


def pictures(config: Config, state) -> dict:
  return {"density": laws.density_picture(with_nodes(config, 2 * config.num_nodes), state, REACH)}
