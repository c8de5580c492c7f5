"""Diffusion from images to images: the network sees, beside the noisy image, what the image has become.

    x = alpha x_0 + sigma eps,    c = corrupt(x_0),        D(x, c, log_snr) ~ E[x_0 | x, c]

Given c this is a diffusion model like any other (diffusion.py): so are its objective, its solvers and its guidance.  It is SR3
where c is coarser (Saharia et al. 2021, https://arxiv.org/abs/2104.07636) and Palette where it is grey or has holes (Saharia et
al. 2022, https://arxiv.org/abs/2111.05826).  Noise may be added to c as well, and the network told how much: it then trusts c
no more than it should, if at test time c is not quite what `corrupt` makes (Ho et al. 2022, "Cascaded diffusion models").

A sample is one image that may have become c.  Images differ; the mean of several samples is nearer to the right one in squared
error (of K samples: 1 + 1 / K times the least there is, so one has 3 dB less than many), and blurred where they differ.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.errors import UserError
from gm_jax.score import guidance, noise
from gm_jax.score.diffusion import Sampler, denoising
from gm_jax.score.parameterizations import Parameterization, level_number
from gm_jax.score.recipes import Recipe


class Given(NamedTuple):
  """What is known of images."""

  picture: jax.Array  # c with its noise, in [-1, 1] but for that, [B, H, W, C]
  noise: jax.Array  # its deviation, [B]


class Conditional(nn.Module):
  """The network and what it is asked for, as a guess of the image given what it has become."""

  network: nn.Module  # (x [B, H, W, 2 C or 2 C + 1], number [B], None, train) -> [B, H, W, C]
  parameterization: Parameterization
  augmentation: float = 0.0  # the largest deviation of the noise on c; 0: the network has no channel for it
  num_kept: int = 64  # training images: what samples without a condition restore

  def output(self, x, given: Given, log_snr, train: bool):
    """F of the noisy images x [B, ...] beside the given ones, log_snr [B]."""
    log_snr = jnp.broadcast_to(jnp.asarray(log_snr, jnp.float32), (len(x),))
    seen = [noise.like(self.parameterization.inp(log_snr), x) * x, given.picture]
    if self.augmentation:
      seen.append(jnp.broadcast_to(noise.like(given.noise, x), (*x.shape[:-1], 1)))
    return self.network(jnp.concatenate(seen, -1), level_number(log_snr), None, train).astype(jnp.float32)

  def __call__(self, x, given: Given, log_snr, train: bool = False):
    """D: the guess of x_0, [B, ...]."""
    log_snr = jnp.broadcast_to(jnp.asarray(log_snr, jnp.float32), (len(x),))
    return self.parameterization.image(x, self.output(x, given, log_snr, train), log_snr)

  @nn.compact
  def keep(self, pictures):
    """The first images that are ever seen, uint8 [num_kept, H, W, C]."""
    rows = jnp.arange(self.num_kept) % len(pictures)
    return self.variable("kept", "images", lambda: jnp.asarray(pictures)[rows]).value


class Told(NamedTuple):
  """A conditional network that has been told its condition: an unconditional one, as `denoising` wants it."""

  model: Conditional
  given: Given
  num_classes: int = 0

  @property
  def parameterization(self):
    return self.model.parameterization

  def output(self, x, log_snr, label, train: bool):
    del label
    return self.model.output(x, self.given, log_snr, train)


def conditional_diffusion(
  network: nn.Module,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  sampler: Sampler,
  corrupt: Callable,
  *,
  augmentation: float = 0.0,
  sampling_noise: float = 0.0,
  keeps: Callable | None = None,
  decay: float = 0.999,
) -> GenerativeModel:
  """A model of images given what they have become; `evaluate` reports "denoising", as diffusion.py has it.

  The condition of `sample` is corrupted images [num, H, W, C], float in [0, 1] or uint8.  Without one, it corrupts training
  images that the model has kept, drawn at random, and restores those.

  Args:
    network: see `Conditional`.
    optimizer: any optax transformation.
    recipe: how it is trained (recipes.py).
    sampler: what `sample` does.
    corrupt: `(key, x in [0, 1]) -> x` of the same shape (reconstruction/corruptions.py).
    augmentation: noise of a deviation up to this is added to the corrupted images in training; 0: none.
    sampling_noise: the deviation in sampling; at most `augmentation`.
    keeps: `corrupted x in [-1, 1] -> guidance` that holds samples to what they are given (`grey_kept`, `blocks_kept`).
    decay: of the average that `sample` and `evaluate` read.
  """
  if not 0 <= sampling_noise <= augmentation <= 1:
    raise UserError(f"0 <= sampling_noise <= augmentation <= 1, please; got {sampling_noise} and {augmentation}")
  module = Conditional(network, recipe.parameterization, augmentation)
  denoise_objective = denoising(recipe)

  def objective(model, key, batch, train):
    model.keep(batch["image"])
    corrupt_key, deviation_key, augment_key, denoise_key = jax.random.split(key, 4)
    seen = _symmetric(corrupt(corrupt_key, images.to_unit(batch["image"])))
    given = augmented(augment_key, seen, augmentation * random.uniform(deviation_key, len(seen)))
    return denoise_objective(Told(model, given), denoise_key, batch, train)

  def sample(model, key, num, condition):
    begin_key, corrupt_key, augment_key, draw_key = jax.random.split(key, 4)
    kept = model.variables["kept"]["images"]
    if condition is None:
      begin = kept[random.randint(begin_key, num, (), 0, len(kept))]
      condition = corrupt(corrupt_key, images.to_unit(begin))
    elif jnp.shape(condition) != (num, *kept.shape[1:]):
      wanted = (num, *kept.shape[1:])
      raise UserError(f"this model's condition is corrupted images {wanted}, not an array {jnp.shape(condition)}")
    seen = _symmetric(images.to_unit(jnp.asarray(condition)))
    given = augmented(augment_key, seen, jnp.full(num, sampling_noise))
    denoise = lambda x, log_snr, label=None: model(x, given, log_snr)
    kept_to = () if keeps is None else (keeps(seen),)
    held = Sampler(sampler.method, (*sampler.guidance, *kept_to))
    return images.from_symmetric(held(denoise, draw_key, num, seen.shape[1:]))

  return from_objective(module, objective, sample, optimizer, reports="denoising", decay=decay)


def augmented(key, seen, deviation) -> Given:
  """Corrupted images [B, ...] with noise of a deviation [B] in [0, 1], their own part shrunk so that variance 1 stays 1."""
  eps = random.normal(key, len(seen), seen.shape[1:])
  own = jnp.sqrt(1 - deviation**2)
  return Given(noise.like(own, seen) * seen + noise.like(deviation, seen) * eps, deviation)


def mean_of(model: GenerativeModel, key, state, condition, num_draws: int):
  """The mean of several samples for each corrupted image: uint8 [B, H, W, C]."""
  draw = lambda key: images.to_unit(model.sample(key, state, len(condition), condition))
  return images.from_unit(jax.lax.map(draw, jax.random.split(key, num_draws)).mean(0))


# What samples may be held to.


def grey_kept(seen) -> Callable:
  """The mean of the channels is that of grey images `seen`, at every pixel (corruptions.grey)."""
  grey = lambda x: jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape)
  return guidance.consistent(grey, lambda x: x, seen)


def blocks_kept(factor: int, enlarged: Callable) -> Callable:
  """The means of blocks of factor x factor pixels are those that were enlarged to `seen` (corruptions.coarse).

  Args:
    factor: the side of a block.
    enlarged: `(x [B, H / factor, W / factor, C], (H, W)) -> [B, H, W, C]`, by the same numbers along each axis
      (corruptions.enlarged).  The means are found again by least squares.
  """

  def shrunk(x):
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))

  def inverse(length):  # [length / factor, length]
    small = length // factor
    with jax.ensure_compile_time_eval():  # numbers, while what is around may be traced
      stripes = jnp.broadcast_to(jnp.eye(small)[:, :, None, None], (small, small, small, 1))
      columns = np.asarray(enlarged(stripes, (length, length)), np.float64)[:, :, 0, 0]
    return jnp.asarray(np.linalg.pinv(columns.T), jnp.float32)

  def keep(seen):
    means = jnp.einsum("ih,jw,bhwc->bijc", inverse(seen.shape[1]), inverse(seen.shape[2]), seen)
    repeated = lambda x: jnp.repeat(jnp.repeat(x, factor, 1), factor, 2)
    return guidance.consistent(shrunk, repeated, means)

  return keep


def _symmetric(x):
  """[0, 1] -> [-1, 1]."""
  return 2 * x - 1
