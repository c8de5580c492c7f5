"""One Gaussian with a full covariance on grey MNIST, dequantised: mean and covariance in closed form, in one pass.

`gm-jax train` also draws the mean and the ten principal directions, each from three deviations below the mean to three above.

Family: tractable
Command: gm-jax train gaussian_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 0.4
Expected: nll 5.285 +- 0.025 bits/dim on the 10,000 test images, dequantised
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from experiments import base
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.tractable import gaussian


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 6  # the training split, once
  batch_size: int = 10_000
  num_directions: int = 10  # in the picture
  log_every: int = 1
  save_every: int = 6
  sample_every: int = 0


def model(config: Config) -> GenerativeModel:
  del config
  return gaussian.gaussian()


def data(config: Config):
  return base.mnist(config)


def protocol(config: Config) -> dict:
  del config
  return {"bin_width": 1.0}  # the nll is the mass of 256 grey levels, not a density


def pictures(config: Config, state: gaussian.State) -> dict:
  variances, directions = gaussian.principal(state.covariance)
  steps = jnp.linspace(-3, 3, 7)[None, :, None] * jnp.sqrt(variances[: config.num_directions])[:, None, None]
  walks = state.mean.reshape(1, 1, -1) + steps * directions.T[: config.num_directions, None]
  walks = walks.reshape(-1, *state.mean.shape)  # [num_directions * 7, H, W, C]
  return {"mean_and_directions": images.grid(np.asarray(images.quantize(walks)), columns=7)}
