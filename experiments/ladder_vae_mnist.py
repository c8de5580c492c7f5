"""A VAE of three levels on statically binarised MNIST, fully connected.

Family: approximate
Command: gm-jax train ladder_vae_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 9
Expected: nll 87.96 +- 0.26 nats (200 importance samples, a bound 91.60 +- 0.28) on the 10,000 test images, seed 0
"""

import dataclasses

import optax

from experiments.base import Run, binarized_mnist
from gm_jax.approximate import hierarchical_vae, vae
from gm_jax.core import GenerativeModel
from gm_jax.networks.ladder import DenseBlock, DenseLadder, DenseReadout


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 25_000  # 50 epochs
  batch_size: int = 100
  learning_rate: float = 1e-3  # of Adam, falling to nothing along a cosine
  latents: tuple[int, ...] = (8, 16, 32)  # of the levels, the top one first
  hidden: tuple[int, ...] = (512, 256, 128)  # units of the encoder's layers, from the image up
  features: int = 256  # of what levels tell each other, and units of their hidden layers
  beta: float = 1.0  # weight of the rates in training
  free_nats: float = 0.0  # that each level has for nothing in training
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20
  threshold: float = 200.0  # norm of gradients whose steps are left out
  decay: float = 0.9995  # of the average of the parameters
  save_every: int = 5000
  sample_every: int = 10_000

  LEAST = Run.LEAST | {"features": 1}


def module(config: Config) -> hierarchical_vae.HierarchicalVAE:
  block = lambda features: DenseBlock(features, config.features)
  levels = [
    hierarchical_vae.Level(latents, config.features, block, top=index == 0) for index, latents in enumerate(config.latents)
  ]
  readout = DenseReadout(config.hidden[0], (28, 28, 1))
  return hierarchical_vae.HierarchicalVAE(DenseLadder(config.hidden), levels, readout, vae.bernoulli())


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  optimizer = hierarchical_vae.skipping(optimizer, config.threshold)
  pressed = dict(beta=config.beta, free_nats=config.free_nats)
  return hierarchical_vae.hierarchical_vae(module(config), optimizer, **pressed, decay=config.decay)


def data(config: Config):
  return binarized_mnist(config)


def measure(config: Config):
  return hierarchical_vae.measure(module(config), config.num_importance_samples)
