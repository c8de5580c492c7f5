"""An image transformer on statically binarised MNIST: each pixel attends to the rows above it, drawn from remembered keys.

Family: tractable
Command: gm-jax train transformer_mnist --data-dir DIR
Hardware: 2 CPU cores
Minutes: 7
Expected: nll 86.84 +- 0.21 nats on the 10,000 test images, exact, seed 0
"""

import dataclasses

import optax

from experiments import shown
from experiments.base import Run, binarized_mnist
from gm_jax.core import GenerativeModel
from gm_jax.networks import image_transformer
from gm_jax.tractable import autoregressive, sequential


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 1000  # a third of an epoch
  batch_size: int = 16
  learning_rate: float = 3e-3  # of Adam, at its height
  warmup: int = 100  # steps on which the rate rises from nothing, before it falls along a cosine
  features: int = 64
  heads: int = 2
  layers: int = 3
  reach: int = 3  # rows above its own that a pixel looks at, in each layer
  first_reach: int = 7  # pixels above and to the left that a token is made of
  decay: float = 0.998  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 500

  LEAST = Run.LEAST | {"features": 1, "heads": 1}


def network(config: Config) -> image_transformer.ImageTransformer:
  sizes = dict(features=config.features, heads=config.heads, layers=config.layers, reach=config.reach)
  return image_transformer.ImageTransformer(1, **sizes, first_reach=config.first_reach)


def model(config: Config) -> GenerativeModel:
  rate = optax.warmup_cosine_decay_schedule(0, config.learning_rate, config.warmup, config.steps)
  optimizer = optax.adam(rate)
  return autoregressive.autoregressive(
    network(config), autoregressive.bernoulli(), optimizer, (28, 28, 1), scan=image_transformer.cached(), decay=config.decay
  )


def conditionals(config: Config) -> sequential.Sequential:
  return sequential.network(network(config), autoregressive.bernoulli(), (28, 28, 1), image_transformer.cached())


def data(config: Config):
  return binarized_mnist(config)


def pictures(config: Config, state) -> dict:
  return {"completions": shown.half_hidden(conditionals(config), state, data(config)["test"])}
