"""A VAE on statically binarised MNIST whose prior is learnt: the average of the encoder's answers to images that it makes up.

Family: approximate
Command: gm-jax train vampprior_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 4
Expected: nll 89.74 +- 0.24 nats (200 importance samples, a bound 94.54 +- 0.25) on the 10,000 test images, seed 0

Other priors are `--prior mixture`, `flow`, `autoregressive` and `normal`; the picture "inputs" shows what the VampPrior has
made up.
"""

import dataclasses
from typing import Literal

import numpy as np
import optax

from experiments import base
from gm_jax import images
from gm_jax.approximate import priors, vae
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder

PRIORS = {
  "vamp": lambda num: priors.VampPrior(num, (28, 28, 1)),
  "mixture": lambda num: priors.GaussianMixture(num),
  "flow": lambda num: priors.CouplingFlow(hidden=(num,)),
  "autoregressive": lambda num: priors.AutoregressiveFlow(hidden=(num,)),
  "normal": lambda num: priors.StandardNormal(),
}


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 12_000  # 24 epochs
  batch_size: int = 100
  learning_rate: float = 1e-3  # of Adam
  prior: Literal["vamp", "mixture", "flow", "autoregressive", "normal"] = "vamp"
  prior_size: int = 100  # pseudo-inputs, components, or hidden units of a flow's layers
  warm_up: int = 3000  # steps over which the rate's weight rises from nothing to one
  hidden: tuple[int, ...] = (300, 300)  # units of the hidden layers, on either side
  num_latents: int = 40
  decay: float = 0.9998  # of the average of the parameters
  num_importance_samples: int = 200  # behind `nll` in `gm-jax evaluate`, a multiple of 20
  save_every: int = 5000
  sample_every: int = 5000

  LEAST = base.Run.LEAST | {"prior_size": 1, "num_latents": 1, "warm_up": 1}


def module(config: Config) -> vae.VAE:
  encoder, decoder = FlatEncoder(config.hidden), FlatDecoder(config.hidden, (28, 28, 1))
  return vae.VAE(encoder, decoder, vae.bernoulli(), config.num_latents, PRIORS[config.prior](config.prior_size))


def model(config: Config) -> GenerativeModel:
  beta = optax.linear_schedule(0.0, 1.0, config.warm_up)
  return vae.vae(module(config), optax.adam(config.learning_rate), beta=beta, decay=config.decay)


def data(config: Config):
  return base.binarized_mnist(config)


def measure(config: Config):
  return vae.measure(module(config), config.num_importance_samples)


def pictures(config: Config, state) -> dict:
  if config.prior != "vamp":
    return {}
  inputs = np.asarray(state.average.variables["params"]["prior"]["inputs"], np.float64)
  return {"inputs": images.grid(np.asarray(images.from_unit(1 / (1 + np.exp(-inputs[:100])))), columns=10)}
