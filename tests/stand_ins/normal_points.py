"""Points of a normal law, and a denoiser that is exact from the start: what a diffusion run says of them is known.

Family: score
"""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from experiments import base, laws
from gm_jax.data import toys
from gm_jax.score import diffusion, grids, noise, parameterizations, recipes, solvers
from gm_jax.tasks.editing import Editor

MEAN, STD = np.array([0.5, -0.25]), 0.4
LAW = toys.gaussian_mixture(MEAN[None], STD**2 * np.eye(2)[None])


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 64
  num_samples: int = 4


class Exact(nn.Module):
  """E[x_0 | x], which ten times nothing is added to."""

  @nn.compact
  def __call__(self, x, number, label, train):
    log_snr = 20 - number / 25  # see parameterizations.level_number
    alpha, sigma = noise.like(noise.alpha(log_snr), x), noise.like(noise.sigma(log_snr), x)
    mean = jnp.asarray(MEAN, jnp.float32)[None, None, None]
    guess = mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * mean)
    return guess + 0.0 * self.param("nothing", nn.initializers.zeros, ())


RECIPE = recipes.edm()._replace(parameterization=parameterizations.image())


def grid(num_steps):
  return grids.karras(num_steps, 0.002, 80.0)


def data(config):
  del config
  return laws.splits(LAW, 500)


def model(config):
  del config
  points = dict(image_shape=(1, 1, 2), read=jnp.asarray, write=lambda x: x)
  return diffusion.diffusion(Exact(), optax.sgd(0.0), RECIPE, diffusion.Sampler(solvers.DDIM()(grid(5))), **points)


def editor(config):
  del config
  module = diffusion.Denoiser(Exact(), RECIPE.parameterization)
  return Editor(lambda state: diffusion.denoiser(module, state), grid, read=jnp.asarray, write=lambda x: x)
