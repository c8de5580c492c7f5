"""Digits and labels by a diffusion model that learns next to nothing, in a moment.

Family: score
"""

from dataclasses import dataclass

import flax.linen as nn
import optax

from experiments import base
from gm_jax.score import diffusion, grids, guidance, recipes, solvers
from gm_jax.tasks.editing import Editor

RECIPE = recipes.velocity()


class Network(nn.Module):
  """Linear in the image, and shifted by the label."""

  classes: int

  @nn.compact
  def __call__(self, x, number, label, train):
    x = nn.Dense(1)(x) + nn.Dense(1)(number[:, None])[:, None, None] / 1000
    return x if label is None else x + nn.Embed(self.classes + 1, 1)(label)[:, None, None]


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 64
  num_samples: int = 4
  classes: int = 10


def grid(num_steps):
  return grids.karras(num_steps, 0.01, 20.0)


def data(config):
  del config
  return base.digits()


def model(config):
  sampler = diffusion.Sampler(solvers.DDIM()(grid(4)), (guidance.clipped(),))
  told = dict(image_shape=(8, 8, 1), num_classes=config.classes)
  return diffusion.diffusion(Network(config.classes), optax.adam(1e-3), RECIPE, sampler, **told)


def editor(config):
  module = diffusion.Denoiser(Network(config.classes), RECIPE.parameterization, config.classes)
  toward = (guidance.classifier_free(2.0, config.classes),) if config.classes else ()
  return Editor(lambda state: diffusion.denoiser(module, state), grid, config.classes, (*toward, guidance.clipped()))
