"""Steering: functions from denoiser to denoiser, which compose in any order.

A denoiser is `(x [B, ...], log_snr, label int32 [B] or None) -> x_0 [B, ...]`; what is said of guesses of the noise or of the
score in papers holds of guesses of the image as well, since at given x they are linear in each other.  Solvers derive the noise
from the guess: whatever is done to a guess, the noise follows.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.score import noise

EVERYWHERE = (-math.inf, math.inf)


def classifier_free(scale: float, null: int, between: tuple[float, float] = EVERYWHERE, rescale: float = 0.0) -> Callable:
  """D(no label) + scale (D(label) - D(no label)) (Ho and Salimans 2021, whose w is scale - 1).

  Args:
    scale: 1 is the conditional model itself, at one evaluation; 0 the unconditional one.
    null: the label that means no label, the number of classes; None as a label means so too.
    between: log SNR at which to guide; elsewhere it is the conditional model, at one evaluation (Kynkaanniemi et al. 2024).
    rescale: see `autoguidance`.
  """

  def without(denoise):
    return lambda x, log_snr, label=None: denoise(x, log_snr, jnp.full(len(x), null, jnp.int32))

  def transform(denoise):
    guided = _away_from(without, scale, between, rescale)(denoise)
    # Without a label there is nowhere to go, and the model is asked once.
    return lambda x, log_snr, label=None: (denoise if label is None else guided)(x, log_snr, label)

  return transform


def autoguidance(worse: Callable, scale: float, between: tuple[float, float] = EVERYWHERE, rescale: float = 0.0) -> Callable:
  """D_worse + scale (D - D_worse): away from what a worse model of the same kind does wrong (Karras et al. 2024).

  Args:
    worse: a denoiser, smaller or trained for a shorter time.
    scale: 1 is the model itself, at one evaluation.
    between: log SNR at which to guide.
    rescale: guesses of too much contrast are brought back to that of D by so large a share (Lin et al. 2024, equations 15, 16);
      0: not at all.
  """
  return _away_from(lambda denoise: worse, scale, between, rescale)


def classifier(log_prob: Callable, scale: float = 1.0) -> Callable:
  """D + scale (sigma^2 / alpha) grad log p(label | x): Bayes' rule for the score (Dhariwal and Nichol 2021).

  In this frame the score of p(x) is (alpha D - x) / sigma^2, and the gradient is wanted where D is, at x.  Bayes' rule starts
  from an unconditional model; one with labels becomes that by `classifier_free(0.0, null)` before this.

  Args:
    log_prob: `(x [B, ...], log_snr, label [B]) -> [B]`, of a classifier of noisy images, differentiable.
    scale: 1 samples from p(x | label) if both are right.
  """

  def transform(denoise):
    def guided(x, log_snr, label=None):
      log_snr = jnp.asarray(log_snr, jnp.float32)
      slope = jax.grad(lambda x: log_prob(x, log_snr, label).sum())(x)
      # Where nothing is left of the image there is nothing to tell a label by.
      worth = jnp.where(jnp.isneginf(log_snr), 0.0, noise.sigma(log_snr) ** 2 / noise.alpha(log_snr))
      return denoise(x, log_snr, label) + scale * noise.like(worth, x) * slope

    return guided

  return transform


def clipped(low: float = -1.0, high: float = 1.0) -> Callable:
  """Guesses are kept in the range of images."""
  return projected(lambda x_0: jnp.clip(x_0, low, high))


def dynamic_threshold(percentile: float = 99.5) -> Callable:
  """Guesses cut at the percentile of their own |x_0| and divided by it, where that is above 1 (Saharia et al. 2022, Imagen).

  For images in [-1, 1], and of no use for anything else: latents have no such range.
  """

  def project(x_0):
    reach = jnp.percentile(jnp.abs(x_0).reshape(len(x_0), -1), percentile, axis=1)  # [B]
    reach = noise.like(jnp.maximum(reach, 1.0), x_0)
    return jnp.clip(x_0, -reach, reach) / reach

  return projected(project)


def replacement(known, x_0) -> Callable:
  """Guesses have the pixels of x_0 where these are known: bool and float, both of the shape of the guesses."""
  return projected(lambda guess: jnp.where(known, x_0, guess))


def consistent(measure: Callable, back: Callable, measured) -> Callable:
  """Guesses x_0 of which measure(x_0) = measured, and are otherwise what they were (Wang et al. 2023, null-space models).

  Args:
    measure: a linear function of images, such as the mean of channels or of blocks.
    back: linear too, with measure(back(measure(x_0))) = measure(x_0).
    measured: of the images that are wanted.
  """
  return projected(lambda guess: guess + back(measured - measure(guess)))


def projected(project: Callable) -> Callable:
  """Any function of guesses, x_0 -> x_0."""
  return lambda denoise: lambda x, log_snr, label=None: project(denoise(x, log_snr, label))


def _away_from(other: Callable, scale: float, between, rescale: float) -> Callable:
  """D' + scale (D - D') with D' = other(D)."""

  def transform(denoise):
    if scale == 1:
      return denoise
    if scale == 0 and tuple(between) == EVERYWHERE and not rescale:
      return other(denoise)
    away = other(denoise)

    def mixed(x, log_snr, label, toward, scale):
      start = away(x, log_snr, label)
      return _with_contrast(start + noise.like(scale, x) * (toward - start), toward, rescale)

    def guided(x, log_snr, label=None):
      toward = denoise(x, log_snr, label)
      if tuple(between) == EVERYWHERE:
        return mixed(x, log_snr, label, toward, scale)
      inside = (log_snr >= between[0]) & (log_snr <= between[1])
      if jnp.ndim(inside):  # levels of their own
        return jnp.where(noise.like(inside, x) > 0, mixed(x, log_snr, label, toward, scale), toward)
      return jax.lax.cond(inside, lambda: mixed(x, log_snr, label, toward, scale), lambda: toward)

    return guided

  return transform


def _with_contrast(guess, like, share: float):
  """`guess` times a number for each image that takes its standard deviation to that of `like`, by a share of the way."""
  if not share:
    return guess
  deviation = lambda x: x.reshape(len(x), -1).std(1)
  found = deviation(guess)
  return guess * noise.like(1 - share + share * deviation(like) / jnp.where(found > 0, found, 1.0), guess)
