"""A VAE of several levels: latents explain latents, and the lowest explain the image.

    p(x, z) = p(x | z_1 .. z_L) p(z_L) prod_l p(z_l | z_{l+1} .. z_L)
    nll_bound = distortion + sum_l KL(q(z_l | x, z_{l+1} ..) || p(z_l | z_{l+1} ..))                       in nats

Levels are gone through from the top for both p and q, which share what the levels above have said (`context`); what the image
says is read once, from the bottom up.  The ladder VAE (Sonderby et al. 2016, https://arxiv.org/abs/1602.02282) has few levels
of vectors; VDVAE (Child 2021, https://arxiv.org/abs/2011.10650) many of maps.  Here both are `Level`s with other blocks.

Such models are known for steps with enormous gradients.  `skipping` leaves those out, and cannot freeze.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import random
from gm_jax.approximate.vae import Likelihood, accumulate, reparameterize
from gm_jax.core import GenerativeModel, from_objective, run
from gm_jax.distributions import kl_normal, normal_log_prob
from gm_jax.networks.ladder import enlarged


class Level(nn.Module):
  """z_l given the context c of the levels above, and given what the image says there, a map h.

  Attributes:
    latents: channels of z_l at each place of the map.
    features: of the context.
    block: `(features) -> a module from maps to maps`, called with (map, train).
    top: whether nothing is above: then p(z_l) = N(0, I).
  """

  latents: int
  features: int
  block: Callable
  top: bool = False

  def setup(self):
    self.prior_block = None if self.top else self.block(2 * self.latents + self.features)
    self.posterior_block = self.block(2 * self.latents)
    self.inject = nn.Dense(self.features)
    self.after = self.block(self.features)

  def prior(self, context, train: bool):
    """Mean and log-variance of p(z | c), maps of `latents`, and the context that goes on."""
    if self.top:
      zeros = jnp.zeros((*context.shape[:3], self.latents), context.dtype)
      return zeros, zeros, context
    mean, log_var, more = jnp.split(self.prior_block(context, train), [self.latents, 2 * self.latents], -1)
    return mean, _bounded(log_var), context + more

  def posterior(self, context, h, train: bool):
    """Mean and log-variance of q(z | x, c)."""
    mean, log_var = jnp.split(self.posterior_block(jnp.concatenate([context, h], -1), train), 2, -1)
    return mean, _bounded(log_var)

  def merge(self, context, z, train: bool):
    """The context for the levels below."""
    context = context + self.inject(z)
    return context + self.after(context, train)


class HierarchicalVAE(nn.Module):
  """Levels from the top to the bottom, over the maps of an encoder.

  Attributes:
    encoder: `(x, train) -> maps`, one for each level, that of the lowest first (networks/ladder.py).
    levels: the top one first.
    decoder: `(context, train) -> outputs [B, H, W, C * likelihood.channels]`.
    likelihood: as for a VAE.
    top_size: (H, W) of the topmost map.
    sizes: (H, W) of the map of each level from the top; none: all are as the topmost.
  """

  encoder: nn.Module
  levels: Sequence[Level]
  decoder: nn.Module
  likelihood: Likelihood
  top_size: tuple[int, int] = (1, 1)
  sizes: Sequence[tuple[int, int]] = ()

  def setup(self):
    self.start = self.param("start", nn.initializers.zeros_init(), (*self.top_size, self.levels[0].features))

  def down(self, num: int, choose: Callable, train: bool):
    """All levels from the top: `choose(index, level, context) -> (z, context)`; the outputs of the decoder."""
    sizes = self.sizes or [self.top_size] * len(self.levels)
    context = jnp.broadcast_to(self.start[None], (num, *self.start.shape))
    for index, (level, size) in enumerate(zip(self.levels, sizes)):
      context = enlarged(context, jax.ShapeDtypeStruct((num, *size, 1), context.dtype))
      z, context = choose(index, level, context)
      context = level.merge(context, z, train)
    return self.decoder(context, train)


def negative_elbo(beta: float = 1.0, free_nats: float = 0.0):
  """The objective.  `beta` weighs the rates, and what an image pays at a level is not pressed below `free_nats` (Kingma et al.
  2016); both in training only: what is evaluated is the bound itself."""

  def objective(vae: HierarchicalVAE, key, batch, train: bool):
    data_key, latent_key = jax.random.split(key)
    x = vae.likelihood.observe(data_key, batch["image"])
    maps, rates = vae.encoder(x, train)[::-1], []

    def choose(index, level, context):
      mean, log_var = level.posterior(context, maps[index], train)
      prior_mean, prior_log_var, context = level.prior(context, train)
      z = reparameterize(jax.random.fold_in(latent_key, index), mean, log_var)
      rates.append(kl_normal(_flat(mean), _flat(log_var), _flat(prior_mean), _flat(prior_log_var)))
      return z, context

    distortion = -vae.likelihood.log_prob(vae.down(len(x), choose, train), x)
    rate = sum(rates)
    parts = {"distortion": distortion, "rate": rate, **{f"rate_{len(rates) - i}": each for i, each in enumerate(rates)}}
    if not train:
      return distortion + rate, parts
    pressed = sum(jnp.maximum(each, free_nats) for each in rates)
    return distortion + beta * pressed, parts

  return objective


def sample(vae: HierarchicalVAE, key, num: int, condition=None):
  """Each level from its prior, then the mean of p(x | z)."""
  del condition

  def choose(index, level, context):
    mean, log_var, context = level.prior(context, False)
    return reparameterize(jax.random.fold_in(key, index), mean, log_var), context

  return vae.likelihood.mean(vae.down(num, choose, train=False))


def log_weights(vae: HierarchicalVAE, key, x, num: int):
  """log p(x, z) - log q(z | x) in nats for `num` draws of z each: x [B, ...] -> [B, num]."""
  maps = [jnp.repeat(h, num, axis=0) for h in vae.encoder(x, False)[::-1]]
  differences = []

  def choose(index, level, context):
    mean, log_var = level.posterior(context, maps[index], False)
    prior_mean, prior_log_var, context = level.prior(context, False)
    noise = random.normal(jax.random.fold_in(key, index), len(x), (num, *mean.shape[1:])).reshape(mean.shape)
    z = mean + jnp.exp(log_var / 2) * noise
    log_p = normal_log_prob(_flat(z), _flat(prior_mean), _flat(prior_log_var))
    differences.append(log_p - normal_log_prob(_flat(z), _flat(mean), _flat(log_var)))
    return z, context

  outputs = vae.down(len(x) * num, choose, False)
  log_likelihood = vae.likelihood.log_prob(outputs, jnp.repeat(x, num, axis=0))
  return (log_likelihood + sum(differences)).reshape(len(x), num)


def measure(module: HierarchicalVAE, num_samples: int = 200) -> Callable:
  """`vae.measure` of a hierarchical VAE: the bound and its parts, and the evidence of `num_samples` importance samples."""
  chunk = math.gcd(num_samples, 20)

  def estimate(vae, key, images):
    data_key, latent_key = jax.random.split(key)
    x = vae.likelihood.observe(data_key, images)
    log_weight = lambda index: log_weights(vae, jax.random.fold_in(latent_key, index), x, chunk)
    return accumulate(log_weight, len(x), num_samples // chunk, chunk)

  def evaluate(key, state, batch):
    bound_key, evidence_key = jax.random.split(key)
    (bound, parts), _ = run(module, negative_elbo(), state.average.variables, bound_key, batch, train=False)
    found = nn.apply(estimate, module)(state.average.variables, evidence_key, batch["image"])
    return {"nll": -found.log_prob, "nll_stderr": found.stderr, "ess": found.ess, "nll_bound": bound, **parts}

  return evaluate


def hierarchical_vae(
  module: HierarchicalVAE,
  optimizer: optax.GradientTransformation,
  *,
  beta: float = 1.0,
  free_nats: float = 0.0,
  decay: float = 0.999,
) -> GenerativeModel:
  """A hierarchical VAE as a generative model; evaluate returns `nll_bound`, `distortion`, `rate` and the rate of each level
  (`rate_1` is the lowest), in nats."""
  return from_objective(module, negative_elbo(beta, free_nats), sample, optimizer, reports="nll_bound", decay=decay)


# Steps that are left out.


class Skipping(NamedTuple):
  """How many steps in a row were left out, how many in all, and the state of the optimiser that was spared them."""

  in_a_row: jax.Array
  in_all: jax.Array
  inner: optax.OptState


def skipping(optimizer: optax.GradientTransformation, threshold: float, patience: int = 10) -> optax.GradientTransformation:
  """`optimizer`, which does not see gradients of a norm above `threshold`; after `patience` such in a row it sees them
  shortened to it.

  VDVAE leaves such steps out however many they are, and a network whose gradients have grown for good never moves again.
  """

  def init(params):
    return Skipping(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), optimizer.init(params))

  def update(grads, state, params=None):
    norm = optax.tree.norm(grads)
    large = ~(norm <= threshold)  # not a number is large
    skip = large & ((state.in_a_row < patience) | ~jnp.isfinite(norm))
    scale = jnp.where(large & ~skip, threshold / norm, 1.0)
    scaled = jax.tree.map(lambda grad: jnp.where(skip, 0, grad * scale).astype(grad.dtype), grads)
    updates, inner = optimizer.update(scaled, state.inner, params)
    pick = lambda old, new: jnp.where(skip, old, new)
    updates = jax.tree.map(lambda update: jnp.where(skip, 0, update).astype(update.dtype), updates)
    in_a_row = jnp.where(skip, state.in_a_row + 1, jnp.where(large, state.in_a_row, 0))
    return updates, Skipping(in_a_row, state.in_all + skip, jax.tree.map(pick, state.inner, inner))

  return optax.GradientTransformation(init, update)


def _bounded(log_var):
  """Softly kept within (-7, 7), so that neither a density nor a divergence runs away."""
  return 7 * jnp.tanh(log_var / 7)


def _flat(a):
  return a.reshape(len(a), -1)
