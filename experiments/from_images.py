"""What the experiments that draw images given corrupted ones share: a Config, the model, and the ways to restore."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import optax

from experiments import base
from experiments.denoisers import SOLVERS, Solver, grid
from gm_jax.core import GenerativeModel
from gm_jax.networks.unet import UNet
from gm_jax.score import conditional, diffusion, guidance, recipes
from gm_jax.tasks import restoration as tasks


@dataclasses.dataclass(frozen=True)
class Conditional(base.Run):
  """The fields of a run."""

  steps: int = 2000
  batch_size: int = 64
  channels: tuple[int, ...] = (32, 64)  # of the U-Net's levels, from the finest
  blocks: int = 1  # residual blocks of each level
  learning_rate: float = 2e-3  # of Adam: it rises for 200 steps, then falls along a cosine
  decay: float = 0.999  # of the average of the parameters
  augmentation: float = 0.0  # the largest deviation of noise on the image that is given; 0: none
  solver: Solver = "dpmpp2"  # of samples
  sample_steps: int = 20  # of the solver

  LEAST: ClassVar[dict[str, float]] = base.Run.LEAST | {"sample_steps": 1, "blocks": 1}


def model(config: Conditional, corrupt: Callable, num_channels: int, keeps: Callable) -> GenerativeModel:
  """On patches of 2 x 2 pixels, since a convolution at full size is what a CPU is worst at."""
  last = len(config.channels) - 1
  network = UNet(config.channels, blocks=config.blocks, patch=2, attention=(last,), out_channels=num_channels)
  rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, 200, max(config.steps, 201))
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
  sampler = diffusion.Sampler(SOLVERS[config.solver](grid(config.sample_steps)), (guidance.clipped(),))
  told = dict(augmentation=config.augmentation, keeps=keeps, decay=config.decay)
  return conditional.conditional_diffusion(network, optimizer, recipes.edm(), sampler, corrupt, **told)


def restorer(model: GenerativeModel, corrupt: Callable, baselines: dict, num_draws: int = 8) -> tasks.Restoration:
  """One sample, and the mean of several."""
  one = jax.jit(lambda state, x: model.sample(jax.random.key(0), state, len(x), x))
  mean = jax.jit(lambda state, x: conditional.mean_of(model, jax.random.key(1), state, x, num_draws))
  return tasks.Restoration(corrupt, one, baselines, {f"mean of {num_draws} samples": mean})
