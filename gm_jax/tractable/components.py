"""The kinds of components that a mixture can have: Gaussians (full, diagonal, tied covariance) and Bernoullis, all K at a time.

A kind says four things of its components: which second moments EM must remember, the parameters that fit what is remembered,
their density, and how the same parameters are written without constraints, which is what gradient ascent needs.  A mixture is
written once for all of them (`mixture.py`, `mixture_by_gradient.py`).

No component is fitted to its examples alone: each has also seen made-up ones, a `share` of the data set; `mixture.py` says why.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from gm_jax import distributions, images, random

MOST_FLOATS = 2**24  # that a loop over components holds at once: a few at a time for images, all of them for points


class Component(NamedTuple):
  """One kind of component, on examples laid flat: D = H * W * C.

  Attributes:
    spread: `(weight [B], deviation [B, D]) -> [...]`, the second moments of one component to remember, averaged over B.
    fit: `(share, mass [K], mean [K, D], spread [K, ...]) -> params`, the penalised maximum-likelihood fit.
    log_prob: `(params, x [B, D]) -> [B, K]`.
    made_up: `params -> [K]`, the expected log-probability, under each component, of the examples that were made up for it.
    sample: `(key, params, which [B]) -> x [B, D]`.
    free: `params -> {name: array}`, free to take any values; "location" [K, D] is one of them.
    constrain: `free -> params`, the inverse.
    pixels: how x is read from images and written back.
  """

  spread: Callable
  fit: Callable
  log_prob: Callable
  made_up: Callable
  sample: Callable
  free: Callable
  constrain: Callable
  pixels: images.Pixels


def each(function: Callable, parts, x):
  """`function(one component's part) -> [...]` for all of them, [K, ...], holding no more than a few copies of x at a time."""
  return jax.lax.map(lambda part: function(*part), parts, batch_size=max(1, MOST_FLOATS // x.size))


def full_gaussian(variance: float = 1e-2, pixels: images.Pixels = images.POINTS) -> Component:
  """Gaussians with full covariances.  `variance` is that of the made-up examples, in the units of x.

  Its params are the mean [K, D], `scale` [K, D, D], lower triangular, with scale @ scale.T the covariance, and `whiten`, the
  inverse of `scale`.
  """

  def fit(share, mass, mean, covariance):
    eye, mass = jnp.eye(mean.shape[1], dtype=mean.dtype), mass[:, None, None]
    # One component at a time: jaxlib's batched LAPACK waits on the very threads that it needs, for ever with 8 virtual devices.
    scale = jax.lax.map(jnp.linalg.cholesky, (mass * covariance + share * variance * eye[None]) / (mass + share))
    return mean, scale, jax.lax.map(_inverse, scale)

  def log_prob(params, x):
    mean, _, whiten = params
    one = lambda mean, whiten: distributions.standard_normal_log_prob((x - mean[None]) @ whiten.T) + _log_det(whiten)
    return each(one, (mean, whiten), x).T

  def made_up(params):
    return jax.vmap(lambda whiten: _expected_log_prob(variance, whiten))(params[2])

  def sample(key, params, which):
    mean, scale, _ = params
    return mean[which] + jnp.einsum("bij,bj->bi", scale[which], random.normal(key, len(which), mean.shape[1:], mean.dtype))

  def free(params):
    return {"location": params[0], "factor": _unconstrained(params[2])}

  def constrain(free):
    whiten = _triangle(free["factor"])
    return free["location"], jax.lax.map(_inverse, whiten), whiten

  return Component(_second_moments, fit, log_prob, made_up, sample, free, constrain, pixels)


def tied_gaussian(variance: float = 1e-2, pixels: images.Pixels = images.POINTS) -> Component:
  """Gaussians that share one full covariance: a component is a place, not a shape.

  Each remembers its own second moments, and `fit` pools them by mass, which is EM's exact M-step.  Params as for
  `full_gaussian`, with `scale` and `whiten` [D, D].
  """

  def fit(share, mass, mean, covariance):
    eye = jnp.eye(mean.shape[1], dtype=mean.dtype)
    made_up = len(mass) * share
    pooled = (jnp.einsum("k,kij->ij", mass, covariance) + made_up * variance * eye) / (mass.sum() + made_up)
    scale = jnp.linalg.cholesky(pooled)
    return mean, scale, _inverse(scale)

  def log_prob(params, x):
    mean, _, whiten = params
    centre = mean.mean(0)[None]  # far from the origin, float32 would lose the differences that count
    white, white_mean = (x - centre) @ whiten.T, (mean - centre) @ whiten.T
    one = lambda mean: distributions.standard_normal_log_prob(white - mean[None]) + _log_det(whiten)
    return each(one, (white_mean,), x).T

  def made_up(params):
    return jnp.full(len(params[0]), _expected_log_prob(variance, params[2]))

  def sample(key, params, which):
    mean, scale, _ = params
    return mean[which] + random.normal(key, len(which), mean.shape[1:], mean.dtype) @ scale.T

  def free(params):
    return {"location": params[0], "factor": _unconstrained(params[2])}

  def constrain(free):
    whiten = _triangle(free["factor"])
    return free["location"], _inverse(whiten), whiten

  return Component(_second_moments, fit, log_prob, made_up, sample, free, constrain, pixels)


def diagonal_gaussian(variance: float = 1e-2, pixels: images.Pixels = images.POINTS) -> Component:
  """Gaussians with independent dimensions.  `variance` is that of the made-up examples, in the units of x.

  Its params are the mean and the log-variance, each [K, D].
  """

  def spread(weight, deviation):
    return weight @ deviation**2 / len(weight)

  def fit(share, mass, mean, variances):
    mass = mass[:, None]
    # Rounding can leave a variance of zero a little below it.
    return mean, jnp.log((mass * jnp.maximum(variances, 0) + share * variance) / (mass + share))

  def log_prob(params, x):
    return each(lambda mean, log_var: distributions.normal_log_prob(x, mean[None], log_var[None]), params, x).T

  def made_up(params):
    log_var = params[1]
    return -0.5 * (math.log(2 * math.pi) + log_var + variance * jnp.exp(-log_var)).sum(1)

  def sample(key, params, which):
    mean, log_var = params
    return mean[which] + jnp.exp(log_var[which] / 2) * random.normal(key, len(which), mean.shape[1:], mean.dtype)

  def free(params):
    return {"location": params[0], "log_variance": params[1]}

  def constrain(free):
    return free["location"], free["log_variance"]

  return Component(spread, fit, log_prob, made_up, sample, free, constrain, pixels)


def bernoulli(pixels: images.Pixels = images.BINARY) -> Component:
  """Independent pixels, on or off.  Its params are the logits [K, D]; nothing needs more than two matrix products."""

  def fit(share, mass, mean, spread):
    del spread
    mass, mean = mass[:, None], jnp.clip(mean, 0, 1)  # rounding can leave it a little outside
    return jnp.log(mass * mean + share / 2) - jnp.log(mass * (1 - mean) + share / 2)

  def log_prob(logits, x):
    return x @ logits.T - jax.nn.softplus(logits).sum(1)[None]

  def made_up(logits):
    return 0.5 * (jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits)).sum(1)

  def sample(key, logits, which):
    return random.bernoulli(key, jax.nn.sigmoid(logits[which])).astype(logits.dtype)

  def free(logits):
    return {"location": logits}

  def constrain(free):
    return free["location"]

  return Component(lambda weight, deviation: (), fit, log_prob, made_up, sample, free, constrain, pixels)


# Triangular matrices.  The precision is whiten.T @ whiten: the logarithms of whiten's diagonal and what lies below it are free,
# and a density needs nothing else, so that gradient ascent solves no linear equations.


def _second_moments(weight, deviation):
  return (weight[:, None] * deviation).T @ deviation / len(weight)


def _inverse(triangle):
  return solve_triangular(triangle, jnp.eye(len(triangle), dtype=triangle.dtype), lower=True)


def _log_det(triangle):
  return jnp.log(jnp.diagonal(triangle)).sum()


def _expected_log_prob(variance, whiten):
  """E[log N(x; mean, covariance)] for x with the given variance in every direction about that mean."""
  return -0.5 * (len(whiten) * math.log(2 * math.pi) + variance * (whiten**2).sum()) + _log_det(whiten)


def _unconstrained(triangle):
  diagonal = _on_diagonal(triangle)
  return jnp.where(diagonal, jnp.log(jnp.where(diagonal, triangle, 1)), triangle)


def _triangle(factor):
  diagonal = _on_diagonal(factor)
  return jnp.where(diagonal, jnp.exp(jnp.where(diagonal, factor, 0)), jnp.tril(factor, -1))


def _on_diagonal(matrix):
  return jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=bool), matrix.shape)
