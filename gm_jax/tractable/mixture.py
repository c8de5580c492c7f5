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

Gradient ascent climbs the same hill to the same top (`mixture_by_gradient.py`).  `components.py` has the kinds of components.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.core import GenerativeModel, global_mean
from gm_jax.tractable.components import Component, bernoulli, diagonal_gaussian, each, full_gaussian, tied_gaussian

__all__ = [
  "Component",
  "State",
  "bernoulli",
  "decreasing",
  "diagonal_gaussian",
  "draw",
  "fit",
  "full_gaussian",
  "log_joint",
  "log_prior",
  "mixture",
  "nll",
  "responsibilities",
  "tied_gaussian",
  "whole_set",
]


class State(NamedTuple):
  """What the components remember of the examples they answered for.  The parameters are `fit` to it."""

  mass: jax.Array  # [K], the part of the data that each component answers for; sums to one
  mean: jax.Array  # [K, H, W, C], of its examples
  spread: Any  # of its examples about their mean: (), [K, D] or [K, D, D]
  updates: jax.Array  # int32 []


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


def nll(component: Component, params, x):
  """-log p(image) in nats, [B]: params of `fit`, x [B, D] as `component.pixels` reads images."""
  return x.shape[1] * component.pixels.log_levels - jax.nn.logsumexp(log_joint(component, params, x), axis=1)


def log_prior(component: Component, params, share: float):
  """What the made-up examples add to the mean log-likelihood: share * sum_k (log w_k + E[log p(made-up | k)]), []."""
  log_weights, parts = params
  return share * (log_weights + component.made_up(parts)).sum()


def draw(component: Component, params, key, num: int, shape):
  """Which component, then an example of it: params of `fit` -> images [num, *shape]."""
  which_key, x_key = jax.random.split(key)
  log_weights, parts = params
  which = random.categorical(which_key, log_weights[None].repeat(num, 0))
  return component.pixels.write(component.sample(x_key, parts, which).reshape(num, *shape))


def responsibilities(component: Component, params, x):
  """p(k | x): params of `fit`, x [B, D] -> [B, K], rows sum to one."""
  return jax.nn.softmax(log_joint(component, params, x), axis=1)


def mixture(component: Component, num_components: int, share: float = 1e-3, step_size: Callable = whole_set) -> GenerativeModel:
  """A mixture of `num_components`, fitted by EM.

  Args:
    component: the kind: `full_gaussian()`, `tied_gaussian()`, `diagonal_gaussian()`, `bernoulli()`.
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
    centres, nearest = _apart(centre_key, x, num_components)
    # All components start as wide as clusters are on average: one that starts narrow, on a lonely example, would stay there.
    average = component.spread(jnp.ones(len(x), x.dtype), x - centres[nearest])
    pooled = jax.tree.map(lambda leaf: leaf[None].repeat(num_components, 0), average)
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
    batch_mass, log_prob = global_mean((responsibility.mean(0), log_prob.mean()))
    mass = (1 - step_size_now) * state.mass + step_size_now * batch_mass
    some = jnp.maximum(mass, jnp.finfo(mass.dtype).tiny)  # a component that nothing belongs to stays where it is
    kept = (1 - step_size_now) * state.mass / some  # [K]
    weight = step_size_now * responsibility / some[None]  # [B, K]; with `kept`, averages to one over the batch
    second = each(lambda weight, mean: component.spread(weight, x - mean[None]), (weight.T, mean), x)
    shift, second = global_mean((weight.T @ x / len(x) - weight.mean(0)[:, None] * mean, second))
    moved = jax.vmap(lambda shift: component.spread(jnp.ones(1, x.dtype), shift[None]))(shift)
    about_new_mean = lambda old, new, moved: kept.reshape(-1, *[1] * (old.ndim - 1)) * old + new - moved
    spread = jax.tree.map(about_new_mean, state.spread, second, moved)
    metrics = {"nll": x.shape[1] * component.pixels.log_levels - log_prob}
    return State(mass, (mean + shift).reshape(state.mean.shape), spread, state.updates + 1), metrics

  def sample(key, state, num, condition=None):
    del condition
    return draw(component, fit(component, state, share), key, num, state.mean.shape[1:])

  def evaluate(key, state, batch):
    x = _flat(component.pixels.read(key, batch["image"]))
    return {"nll": nll(component, fit(component, state, share), x)}

  return GenerativeModel(init, step, sample, evaluate)


def _flat(x):
  return x.reshape(len(x), -1)


def _apart(key, x, num: int):
  """`num` rows of x [B, D], far apart: each is drawn in proportion to its squared distance from those already drawn
  (k-means++, Arthur & Vassilvitskii 2007).  Returns them, [num, D], and which of them is nearest to each row, int32 [B]."""

  def draw(carry, key_and_index):
    distance, nearest = carry
    key, index = key_and_index
    centre = x[jax.random.categorical(key, jnp.log(distance))]
    to_centre = ((x - centre[None]) ** 2).sum(1)
    return (jnp.minimum(distance, to_centre), jnp.where(to_centre < distance, index, nearest)), centre

  everywhere_far = jnp.full(len(x), 1e30, x.dtype), jnp.zeros(len(x), jnp.int32)
  (_, nearest), centres = jax.lax.scan(draw, everywhere_far, (jax.random.split(key, num), jnp.arange(num, dtype=jnp.int32)))
  return centres, nearest
