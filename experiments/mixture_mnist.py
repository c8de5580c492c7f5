"""Mixture of Bernoullis on statically binarised MNIST, by EM on the whole training split.

`share` and the number of steps were chosen on the validation split.  The tables of NADE and MADE have 137.64 nats for 500
components and 168.95 for 10 (Larochelle & Murray 2011; Germain et al. 2015).

Family: tractable
Command: gm-jax train mixture_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 2.5
Expected: nll 125.90 +- 0.40 nats on the test split; 167.07 +- 0.45 with --num-components 10
"""

import dataclasses

import numpy as np

from experiments import base
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.tractable import mixture, sequential


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 60  # each is one step of EM
  batch_size: int = 50_000  # the training split
  num_components: int = 500
  share: float = 5e-6  # of the data set, that each component is given in made-up examples: a quarter of an image
  log_every: int = 1
  save_every: int = 30
  sample_every: int = 0

  LEAST = base.Run.LEAST | {"num_components": 1, "share": 1e-9}


def model(config: Config) -> GenerativeModel:
  return mixture.mixture(mixture.bernoulli(), config.num_components, config.share)


def conditionals(config: Config) -> sequential.Sequential:
  return sequential.bernoulli_mixture(lambda state: mixture.fit(mixture.bernoulli(), state, config.share))


def data(config: Config):
  return base.binarized_mnist(config)


def pictures(config: Config, state):
  """The hundred components that answer for most images: each one's mean, the greatest first."""
  del config
  largest = np.argsort(-np.asarray(state.mass))[:100]
  return {"components": images.grid(np.asarray(images.from_unit(state.mean[largest])))}
