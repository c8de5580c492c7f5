"""Diffusion: one network guesses the image from a noisy one at any noise level; whatever else there is reads that guess.

    x = alpha x_0 + sigma eps,        D(x, log_snr, label) ~ E[x_0 | x],        loss = weight(log_snr) |D - x_0|^2

Ho, Jain and Abbeel 2020 (DDPM), Song et al. 2021 (score SDE), Karras et al. 2022 (EDM), Lipman et al. 2023 and Liu et al. 2023
(flow matching, rectified flow) are recipes (recipes.py): what the network is asked for
(parameterizations.py), which levels it is trained on (levels.py), what errors cost (weights.py).  And whatever a network was
trained by, it can be sampled by any solver (solvers.py) on any grid (grids.py) under any guidance (guidance.py): a `Sampler`.

A *denoiser* is a function `(x [B, ...], log_snr [] or [B], label int32 [B] or None) -> x_0 [B, ...]`, float32.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.score import noise, solvers
from gm_jax.score.parameterizations import Parameterization, level_number
from gm_jax.score.recipes import Recipe
from gm_jax.score.solvers import Method


class Denoiser(nn.Module):
  """The network and what it is asked for, as a guess of the image."""

  network: nn.Module  # (x [B, H, W, C], number [B], label int32 [B] or None, train) -> [B, H, W, C]
  parameterization: Parameterization
  num_classes: int = 0  # of labels; 0: the labels of a batch are not read

  def output(self, x, log_snr, label, train: bool):
    """F of the noisy images x [B, ...], log_snr [B]."""
    log_snr = jnp.broadcast_to(jnp.asarray(log_snr, jnp.float32), (len(x),))
    inputs = noise.like(self.parameterization.inp(log_snr), x) * x
    label = label if self.num_classes else None
    return self.network(inputs, level_number(log_snr), label, train).astype(jnp.float32)

  def __call__(self, x, log_snr, label=None, train: bool = False):
    """D: the guess of x_0, [B, ...]."""
    log_snr = jnp.broadcast_to(jnp.asarray(log_snr, jnp.float32), (len(x),))
    return self.parameterization.image(x, self.output(x, log_snr, label, train), log_snr)


class Sampler(NamedTuple):
  """How a trained model is sampled.

  Attributes:
    method: a solver on a grid.
    guidance: functions denoiser -> denoiser, the first applied first.
  """

  method: Method
  guidance: Sequence[Callable] = ()

  def __call__(self, denoise: Callable, key, num: int, shape, label=None, num_frames: int = 0):
    """x_0 [num, *shape], float32; row i by the key and i alone.  `num_frames` as `solvers.follow` has it."""
    start_key, steps_key = jax.random.split(key)
    for transform in self.guidance:
      denoise = transform(denoise)
    told = lambda x, log_snr: denoise(x, log_snr, label)
    return solvers.follow(told, self.method, random.normal(start_key, num, shape), steps_key, num_frames=num_frames)


def denoising(recipe: Recipe, *, read: Callable = images.to_symmetric, label_dropout: float = 0.1):
  """The objective: weight(log_snr) |D - x_0|^2 per dimension at one level for each image.

  Args:
    recipe: the levels and the weight; the parameterization is the model's.
    read: from the batch's images to x_0.
    label_dropout: the share of examples whose label is hidden, for guidance without a classifier.
  """

  def objective(model: Denoiser, key, batch, train: bool):
    level_key, noise_key, label_key = jax.random.split(key, 3)
    x_0 = read(batch["image"])
    log_snr, eps = recipe.levels.sample(level_key, len(x_0)), random.normal(noise_key, len(x_0), x_0.shape[1:])
    label = hidden(label_key, batch.get("label"), label_dropout if train else 0.0, model.num_classes)
    x = noise.diffuse(x_0, log_snr, eps)
    chosen = model.parameterization
    error = jnp.square(model.output(x, log_snr, label, train) - chosen.target(x_0, eps, log_snr))
    error = jnp.square(chosen.out(log_snr)) * error.reshape(len(x_0), -1).mean(1)  # of the image, [B]
    return recipe.weight(log_snr) * error, {"image_error": error, "noise_error": jnp.exp(log_snr) * error}

  return objective


def hidden(key, label, share: float, null: int):
  """Labels [B] of which each is `null` with probability `share`, by a draw of its own; None stays None."""
  if label is None or not null or not share:
    return label
  return jnp.where(random.bernoulli(key, jnp.full(len(label), share)), null, label)


def diffusion(
  network: nn.Module,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  sampler: Sampler,
  *,
  image_shape: tuple[int, ...],
  num_classes: int = 0,
  label_dropout: float = 0.1,
  read: Callable = images.to_symmetric,
  write: Callable = images.from_symmetric,
  decay: float = 0.999,
) -> GenerativeModel:
  """A diffusion model; `evaluate` reports "denoising", the weighted squared error per dimension at a random level.

  Args:
    network: see `Denoiser`.
    optimizer: any optax transformation.
    recipe: how it is trained.
    sampler: what `sample` does; labels are its condition.
    image_shape: (H, W, C).
    num_classes: of the labels that the network is told; 0: none.
    label_dropout: the share of examples whose label is hidden in training.
    read, write: from a batch's images to x_0 and back.
    decay: of the average that `sample` and `evaluate` read.
  """
  module = Denoiser(network, recipe.parameterization, num_classes)
  if not recipe.parameterization.bottomless and sampler.method.log_snr[0] == -np.inf:
    raise ValueError("where nothing is left of the image, its noise tells nothing about it: ask for the image, v or the flow")
  objective = denoising(recipe, read=read, label_dropout=label_dropout)

  def sample(model, key, num, condition):
    return write(sampler(model, key, num, image_shape, condition))

  return from_objective(module, objective, sample, optimizer, reports="denoising", decay=decay)


def denoiser(module: Denoiser, state) -> Callable:
  """The denoiser of a state's averaged parameters."""
  return lambda x, log_snr, label=None: module.apply(state.average.variables, x, log_snr, label)
