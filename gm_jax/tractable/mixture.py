"""Mixtures of Gaussians or Bernoullis: who made this example?  Guess, refit, repeat (expectation maximisation).

    p(x) = sum_k w_k p(x | k)

The E-step computes each component's responsibility p(k | x); the M-step refits every component to the examples it answers
for.  No step can lower the likelihood, and there is no gradient and no learning rate (Dempster, Laird & Rubin 1977).  On
mini-batches the same step becomes stochastic approximation: moments are kept as running averages and a batch moves them by a
decreasing step size (Cappe & Moulines 2009, https://arxiv.org/abs/0712.4273).  A step size of 1 with the whole data set as
the batch is EM itself.

Likelihood alone would let a Gaussian shrink onto one example, and a Bernoulli swear that a pixel never seen on is never on.  So
each component is fitted as though it had also seen a `share` of the data set, made up: examples spread with a given variance
around its own mean, or pixels half of them on.  That is the mode under a Dirichlet, an inverse Wishart and a beta prior; with N
examples and Bernoullis, share = 2 / N is Laplace's rule.  EM then climbs the penalised likelihood

    mean log p(x) + share * sum_k (log w_k + E[log p(made-up example | k)])
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import distributions, images, random
from gm_jax.core import GenerativeModel, global_mean


class State(NamedTuple):
  """What the components remember of the examples they answered for.  The parameters are `fit` to it."""

  mass: jax.Array  # [K], the part of the data that each component answers for; sums to one
  mean: jax.Array  # [K, H, W, C], of its examples
  spread: Any  # of its examples about their mean: (), [K, D] or [K, D, D]
  updates: jax.Array  # int32 []


class Component(NamedTuple):
  """One kind of component, all K at a time, on examples laid flat: D = H * W * C.

  Attributes:
    spread: `(weight [B, K], deviation [B, K, D]) -> [K, ...]`, the second moments to remember, averaged over B.
    fit: `(share, mass [K], mean [K, D], spread) -> params`, the penalised maximum-likelihood fit.
    log_prob: `(params, x [B, D]) -> [B, K]`.
    sample: `(key, params, which [B]) -> x [B, D]`.
    pixels: how x is read from images and written back.
  """

  spread: Callable
  fit: Callable
  log_prob: Callable
  sample: Callable
  pixels: images.Pixels


def full_gaussian(variance: float = 1e-2, pixels: images.Pixels = images.POINTS) -> Component:
  """Gaussians with full covariances.  `variance` is that of the made-up examples, in the units of x."""

  def spread(weight, deviation):
    return jnp.einsum("bk,bki,bkj->kij", weight, deviation, deviation) / len(weight)

  def fit(share, mass, mean, covariance):
    eye = jnp.eye(mean.shape[1], dtype=mean.dtype)
    mass = mass[:, None, None]
    # One component at a time: jaxlib's batched LAPACK waits on the very threads that it needs, for ever with 8 virtual devices.
    scale = jax.lax.map(jnp.linalg.cholesky, (mass * covariance + share * variance * eye[None]) / (mass + share))
    whiten = jax.lax.map(lambda one: jax.scipy.linalg.solve_triangular(one, eye, lower=True), scale)
    return mean, scale, whiten  # scale is lower triangular, scale @ scale.T the covariance, and whiten the inverse of scale

  def log_prob(params, x):
    mean, scale, whiten = params
    white = jnp.einsum("kij,bkj->bki", whiten, x[:, None] - mean[None])
    log_det = jnp.log(jnp.diagonal(scale, axis1=1, axis2=2)).sum(1)
    return -0.5 * (white**2 + math.log(2 * math.pi)).sum(2) - log_det[None]

  def sample(key, params, which):
    mean, scale, _ = params
    return mean[which] + jnp.einsum("bij,bj->bi", scale[which], random.normal(key, len(which), mean.shape[1:], mean.dtype))

  return Component(spread, fit, log_prob, sample, pixels)


def diagonal_gaussian(variance: float = 1e-2, pixels: images.Pixels = images.POINTS) -> Component:
  """Gaussians with independent dimensions.  `variance` is that of the made-up examples, in the units of x."""

  def spread(weight, deviation):
    return (weight[..., None] * deviation**2).mean(0)

  def fit(share, mass, mean, variances):
    mass = mass[:, None]
    # Rounding can leave a variance of zero a little below it.
    return mean, jnp.log((mass * jnp.maximum(variances, 0) + share * variance) / (mass + share))

  def log_prob(params, x):
    one = lambda mean, log_var: distributions.normal_log_prob(x, mean[None], log_var[None])
    return jax.vmap(one, out_axes=1)(*params)

  def sample(key, params, which):
    mean, log_var = params
    return mean[which] + jnp.exp(log_var[which] / 2) * random.normal(key, len(which), mean.shape[1:], mean.dtype)

  return Component(spread, fit, log_prob, sample, pixels)


def bernoulli(pixels: images.Pixels = images.BINARY) -> Component:
  """Independent pixels, on or off."""

  def fit(share, mass, mean, spread):
    del spread
    mass, mean = mass[:, None], jnp.clip(mean, 0, 1)  # rounding can leave it a little outside
    return jnp.log(mass * mean + share / 2) - jnp.log(mass * (1 - mean) + share / 2)  # logits [K, D]

  def log_prob(logits, x):
    return x @ logits.T - jax.nn.softplus(logits).sum(1)[None]

  def sample(key, logits, which):
    return random.bernoulli(key, jax.nn.sigmoid(logits[which])).astype(logits.dtype)

  return Component(lambda weight, deviation: (), fit, log_prob, sample, pixels)


def whole_set(updates) -> float:
  """Step size of EM: each batch is the whole data set, and the past is forgotten."""
  del updates
  return 1.0


def decreasing(power: float = 0.6) -> Callable:
  """Step sizes 2^-power, 3^-power, ... for mini-batches; they converge for a power in (1/2, 1]."""
  return lambda updates: (updates + 2.0) ** -power


def fit(component: Component, state: State, share: float):
  """Log weights [K] and the components' parameters."""
  log_weights = jnp.log(state.mass + share) - jnp.log((state.mass + share).sum())
  return log_weights, component.fit(share, state.mass, _flat(state.mean), state.spread)


def log_joint(component: Component, params, x):
  """log p(x, k): params of `fit`, x [B, D] -> [B, K]."""
  log_weights, parts = params
  return log_weights[None] + component.log_prob(parts, x)


def responsibilities(component: Component, params, x):
  """p(k | x): params of `fit`, x [B, D] -> [B, K], rows sum to one."""
  return jax.nn.softmax(log_joint(component, params, x), axis=1)


def mixture(
  component: Component, num_components: int, share: float = 1e-3, step_size: Callable = whole_set
) -> GenerativeModel:
  """A mixture of `num_components`, fitted by EM.

  Args:
    component: the kind: `full_gaussian()`, `diagonal_gaussian()`, `bernoulli()`.
    num_components: K.
    share: how much of the data set each component is given in made-up examples; above 0.
    step_size: `(updates so far, int32 []) -> step size in (0, 1]`; `whole_set` or `decreasing()`.
  """
  if not share > 0:
    raise ValueError(f"share must be above 0, not {share}: without it a component can shrink onto one example")

  def init(key, batch):
    pixel_key, centre_key = jax.random.split(key)
    shape = batch["image"].shape[1:]
    x = _flat(component.pixels.read(pixel_key, batch["image"]))
    centres = _apart(centre_key, x, num_components)
    deviation = x[:, None] - centres[None]  # [B, K, D]
    nearest = jax.nn.one_hot((deviation**2).sum(2).argmin(1), num_components, dtype=x.dtype)
    # All components start as wide as clusters are on average: one that starts narrow, on a lonely example, would stay there.
    pool = lambda leaf: leaf.sum(0, keepdims=True).repeat(num_components, 0)
    pooled = jax.tree.map(pool, component.spread(nearest, deviation))
    mass = jnp.full(num_components, 1 / num_components, x.dtype)
    return State(mass, centres.reshape(num_components, *shape), pooled, jnp.zeros((), jnp.int32))

  def step(key, state, batch):
    x = _flat(component.pixels.read(key, batch["image"]))
    mean = _flat(state.mean)
    step_size_now = jnp.asarray(step_size(state.updates), x.dtype)

    # E-step.
    joint = log_joint(component, fit(component, state, share), x)  # [B, K]
    log_prob = jax.nn.logsumexp(joint, axis=1)  # [B]
    responsibility = jnp.exp(joint - log_prob[:, None])

    # M-step.  Moments are taken about the old means: about the origin, float32 would lose small variances of far components.
    batch_mass, nll = global_mean((responsibility.mean(0), -log_prob.mean()))
    mass = (1 - step_size_now) * state.mass + step_size_now * batch_mass
    some = jnp.maximum(mass, jnp.finfo(mass.dtype).tiny)  # a component that nothing belongs to stays where it is
    kept = (1 - step_size_now) * state.mass / some  # [K]
    weight = step_size_now * responsibility / some[None]  # [B, K]; with `kept`, averages to one over the batch
    shift, second = global_mean(
      (weight.T @ x / len(x) - weight.mean(0)[:, None] * mean, component.spread(weight, x[:, None] - mean[None]))
    )
    about_new_mean = lambda old, new, moved: kept.reshape(-1, *[1] * (old.ndim - 1)) * old + new - moved
    spread = jax.tree.map(about_new_mean, state.spread, second, component.spread(jnp.ones_like(mass)[None], shift[None]))
    return State(mass, (mean + shift).reshape(state.mean.shape), spread, state.updates + 1), {"nll": nll + _levels(x)}

  def sample(key, state, num, condition=None):
    del condition
    which_key, x_key = jax.random.split(key)
    log_weights, parts = fit(component, state, share)
    which = random.categorical(which_key, log_weights[None].repeat(num, 0))
    x = component.sample(x_key, parts, which)
    return component.pixels.write(x.reshape(num, *state.mean.shape[1:]))

  def evaluate(key, state, batch):
    x = _flat(component.pixels.read(key, batch["image"]))
    return {"nll": _levels(x) - jax.nn.logsumexp(log_joint(component, fit(component, state, share), x), axis=1)}

  def _levels(x):
    return x.shape[1] * component.pixels.log_levels

  return GenerativeModel(init, step, sample, evaluate)


def _flat(x):
  return x.reshape(len(x), -1)


def _apart(key, x, num: int):
  """`num` rows of x [B, D], far apart: each is drawn in proportion to its squared distance from those already drawn
  (k-means++, Arthur & Vassilvitskii 2007)."""

  def draw(distance, key):
    centre = x[jax.random.categorical(key, jnp.log(distance))]
    return jnp.minimum(distance, ((x - centre[None]) ** 2).sum(1)), centre

  everywhere_far = jnp.full(len(x), 1e30, x.dtype)
  return jax.lax.scan(draw, everywhere_far, jax.random.split(key, num))[1]
