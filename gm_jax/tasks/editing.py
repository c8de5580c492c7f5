"""Editing: what a denoiser can do with images that are already there.

An image is taken some way towards noise and back.  On the way out it forgets its details; on the way back the denoiser makes up
new ones, which fit what is left: a coarse sketch (`image_to_image`), two images mixed (`blend`).  `invert` is the way out that
forgets nothing, and `interpolate` mixes two images there.  Where pixels are to stay as they are, see inpainting.py.

All are functions of a denoiser (score/diffusion.py) and of x_0 as it reads images, in [-1, 1] as a rule; all may be compiled.
Guidance comes first: what edits is the guided denoiser.  A `grid` is log SNR rising from noise to +inf (score/grids.py).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.score import grids, noise, solvers

ANCESTRAL = solvers.Ancestral()


class Editor(NamedTuple):
  """What an experiment says of its diffusion model, by `editor(config)`, so that `gm-jax edit` can use it.

  Attributes:
    denoiser: `state -> denoiser`.
    grid: `number of steps -> log SNR [N + 1]`, the levels at which this model edits.
    num_classes: of the labels that it is told, and the label that means none; 0: it is told no labels.
    guidance: functions denoiser -> denoiser, the first applied first, that it is always sampled with.
    read, write: from uint8 images to x_0 and back.
  """

  denoiser: Callable
  grid: Callable
  num_classes: int = 0
  guidance: Sequence[Callable] = ()
  read: Callable = images.to_symmetric
  write: Callable = images.from_symmetric


# There and back without forgetting: the probability flow.


def invert(denoise: Callable, x_0, *, grid, label=None):
  """The noise that DDIM makes x_0 [B, ...] from, [B, ...]: its steps, of first order, taken backwards.

  They start at the finest level of the grid that has any noise, with none: there the best guess of an image's noise is 0.
  """
  method = backwards(grid)
  return solvers.follow(told(denoise, label), method, x_0 * noise.alpha(method.log_snr[0]).astype(x_0.dtype), None)


def generate(denoise: Callable, x, *, grid, label=None):
  """x_0 [B, ...] that DDIM makes of the noise x [B, ...]: what `invert` goes back on."""
  return solvers.follow(told(denoise, label), solvers.DDIM()(grid), x, None)


def backwards(grid) -> solvers.Method:
  """DDIM's steps from a grid's finest noisy level to its first: x_t = alpha_t D + sigma_t eps, D and eps guessed at x_s."""
  levels = grids.checked(grid)
  levels = levels[levels < np.inf][::-1]
  if len(levels) < 2:
    raise UserError(f"going back to noise takes two noisy levels at least; the grid is {np.asarray(grid)}: take more steps")
  s, t = levels[:-1], levels[1:]
  kept = noise.sigma(t) / noise.sigma(s)
  return solvers.multistep(levels, kept, (noise.alpha(t) - noise.alpha(s) * kept)[:, None])


def slerp(first, second, weight):
  """From `first` [B, ...] at weight 0 to `second` at 1 along the arc between them, whose length of vectors noise keeps.

  A straight line would cut through where no noise is: halfway, two independent draws have a variance of one half.
  """
  flat = lambda x: x.reshape(len(x), -1)
  lengths = jnp.linalg.norm(flat(first), axis=1) * jnp.linalg.norm(flat(second), axis=1)
  cosine = (flat(first) * flat(second)).sum(1) / jnp.where(lengths > 0, lengths, 1.0)
  angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))  # [B]
  straight = jnp.sin(angle) < 1e-3  # no arc, or any: a line
  whole = jnp.where(straight, 1.0, jnp.sin(angle))
  share = lambda w: jnp.where(straight, w, jnp.sin(w * angle) / whole)
  return noise.like(share(1 - weight), first) * first + noise.like(share(weight), first) * second


def interpolate(denoise: Callable, first, second, weights, *, grid, label=None):
  """Between two images, by their noise: both inverted, mixed along the arc (`slerp`), generated again (Song et al. 2021, DDIM).

  Args:
    denoise: the denoiser.
    first, second: x_0 [B, ...].
    weights: [K] in [0, 1], of the second.
    grid: log SNR; more steps, better likeness at the ends, which are the reconstructions of the two images.
    label: int32 [B] or None.

  Returns:
    [K, B, ...].
  """
  ends = [invert(denoise, x_0, grid=grid, label=label) for x_0 in (first, second)]
  between = lambda weight: generate(denoise, slerp(*ends, weight), grid=grid, label=label)
  return jax.lax.map(between, jnp.asarray(weights, jnp.float32))


# Some of the way to noise.


def tail(grid, strength: float) -> np.ndarray:
  """The last part of a grid: so large a share of its steps, one at least."""
  grid = grids.checked(grid)
  if not 0 < strength <= 1:
    raise UserError(f"a strength is above 0 and at most 1, not {strength}")
  count = math.ceil(strength * (len(grid) - 1) - 1e-9)
  return grid[-1 - count :]


def image_to_image(denoise: Callable, x_0, key, *, grid, strength: float, solver: Callable = ANCESTRAL, label=None):
  """SDEdit (Meng et al. 2022): noise added, and taken away again with what else was there at that scale.

  Args:
    denoise: the denoiser.
    x_0: the sketch, [B, ...].
    key: of all noise.
    grid: log SNR of the whole way.
    strength: which share of the steps is taken; 0 gives the sketch back, 1 hardly remembers it.
    solver: of solvers.py.
    label: int32 [B] or None.

  Returns:
    [B, ...].
  """
  if strength == 0:
    return x_0
  start_key, steps_key = jax.random.split(key)
  eps = random.normal(start_key, len(x_0), x_0.shape[1:])
  return _denoised(denoise, x_0, eps, steps_key, solver(tail(grid, strength)), label)


def blend(
  denoise: Callable,
  first,
  second,
  weights,
  key,
  *,
  grid,
  strength: float,
  solver: Callable = ANCESTRAL,
  same_noise: bool = True,
  label=None,
):
  """Between two images at an intermediate level: mixed there, and denoised (Ho et al. 2020, section 4.3).

  The images are mixed in a straight line.  Their noise is the same for both, or else is mixed along the arc, so that at every
  weight there is as much noise as the denoiser is told; the noise of the steps is the same at all weights.  At weights 0 and 1
  this is `image_to_image` of either image (of the first alone if the noise differs).  Arguments and result: see `interpolate`
  and `image_to_image`.
  """
  start_key, steps_key = jax.random.split(key)
  method = solver(tail(grid, strength))
  eps = random.normal(start_key, len(first), first.shape[1:])
  other = eps if same_noise else random.normal(jax.random.fold_in(start_key, 1), len(first), first.shape[1:])

  def between(weight):
    mixed = (1 - weight) * first + weight * second
    return _denoised(denoise, mixed, eps if same_noise else slerp(eps, other, weight), steps_key, method, label)

  return jax.lax.map(between, jnp.asarray(weights, jnp.float32))


def _denoised(denoise, x_0, eps, key, method, label):
  x = noise.diffuse(x_0, method.log_snr[0], eps)
  return solvers.follow(told(denoise, label), method, x, key)


def told(denoise: Callable, label) -> Callable:
  """The denoiser as solvers follow it, `(x, log_snr) -> x_0`."""
  return lambda x, log_snr: denoise(x, log_snr, label)
