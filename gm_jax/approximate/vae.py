"""The variational autoencoder: an encoder that proposes a Gaussian over z, a decoder that explains x by z, one bound for both.

    log p(x)  >=  E_q(z|x) [log p(x | z)]  -  KL(q(z | x) || p(z))
    nll_bound  =       distortion          +        rate                                       in nats

Kingma & Welling 2014 (https://arxiv.org/abs/1312.6114); the weight beta on the rate is Higgins et al. 2017; the tighter,
importance weighted bound is Burda et al. 2016 (https://arxiv.org/abs/1509.00519).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective, run
from gm_jax.distributions import (
  bernoulli_log_prob,
  kl_to_standard_normal,
  normal_log_prob,
  standard_normal_log_prob,
)


class Likelihood(NamedTuple):
  """p(x | z), read off the decoder's output.

  Attributes:
    channels: decoder outputs per pixel and image channel.
    observe: `(key, images uint8) -> x`, the numbers that the density is over.
    log_prob: `(outputs, x) -> [B]`, in nats.
    mean: `outputs -> E[x | z]`, as images.
    sample: `(key, outputs) -> images`.
  """

  channels: int
  observe: Callable
  log_prob: Callable
  mean: Callable
  sample: Callable


class VAE(nn.Module):
  """q(z | x) = N(mean(x), diag exp(log_var(x))), p(z) = N(0, I), p(x | z) by the likelihood."""

  encoder: nn.Module  # (x [B, H, W, C], train) -> features [B, F]
  decoder: nn.Module  # (z [B, Z], train) -> outputs [B, H, W, C * likelihood.channels]
  likelihood: Likelihood
  num_latents: int

  def setup(self):
    self.posterior = nn.Dense(2 * self.num_latents)

  def encode(self, x, train: bool):
    """Mean and log-variance of q(z | x), each [B, Z]."""
    return jnp.split(self.posterior(self.encoder(x, train)), 2, axis=-1)

  def decode(self, z, train: bool):
    return self.decoder(z, train)


def negative_elbo(beta: float = 1.0):
  """The objective.  `beta` weighs the rate in training only: what is evaluated is always the bound itself."""

  def objective(vae: VAE, key, batch, train: bool):
    data_key, latent_key = jax.random.split(key)
    x = vae.likelihood.observe(data_key, batch["image"])
    mean, log_var = vae.encode(x, train)
    z = reparameterize(latent_key, mean, log_var)
    distortion = -vae.likelihood.log_prob(vae.decode(z, train), x)  # [B]
    rate = kl_to_standard_normal(mean, log_var)  # [B]
    return distortion + (beta if train else 1.0) * rate, {"distortion": distortion, "rate": rate}

  return objective


def reparameterize(key, mean, log_var):
  """z ~ N(mean, exp(log_var)) as a differentiable function of its parameters, [B, Z]."""
  return mean + jnp.exp(log_var / 2) * random.normal(key, len(mean), mean.shape[1:])


def mean_sample(vae: VAE, key, num: int, condition=None):
  """z from the prior, then the mean of p(x | z): the pictures that papers show.  [num, H, W, C]"""
  del condition
  return vae.likelihood.mean(vae.decode(random.normal(key, num, (vae.num_latents,)), train=False))


def ancestral_sample(vae: VAE, key, num: int, condition=None):
  """z from the prior, then x from p(x | z): draws from the model itself.  [num, H, W, C]"""
  del condition
  latent_key, pixel_key = jax.random.split(key)
  outputs = vae.decode(random.normal(latent_key, num, (vae.num_latents,)), train=False)
  return vae.likelihood.sample(pixel_key, outputs)


def vae(
  module: VAE,
  optimizer: optax.GradientTransformation,
  *,
  beta: float = 1.0,
  sample: Callable = mean_sample,
  decay: float = 0.999,
) -> GenerativeModel:
  """A VAE as a generative model; evaluate returns `nll_bound`, `distortion` and `rate`, in nats.

  Args:
    module: networks, likelihood and number of latents.
    optimizer: one, for encoder and decoder together.
    beta: weight of the rate while training (Higgins et al. 2017).
    sample: `mean_sample` or `ancestral_sample`.
    decay: of the average of the parameters.
  """
  return from_objective(module, negative_elbo(beta), sample, optimizer, reports="nll_bound", decay=decay)


# The likelihoods.


def bernoulli(pixels: images.Pixels = images.BINARY) -> Likelihood:
  """Black and white pixels, a logit each."""
  return Likelihood(
    channels=1,
    observe=pixels.read,
    log_prob=bernoulli_log_prob,
    mean=lambda logits: pixels.write(jax.nn.sigmoid(logits)),
    sample=lambda key, logits: pixels.write(random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32)),
  )


def gaussian(min_log_var: float = -8.0, pixels: images.Pixels = images.DEQUANTIZED) -> Likelihood:
  """Grey or colour pixels, or points: a mean and a log-variance each.

  Args:
    min_log_var: the log-variance is softly kept above this, since pixels that never vary could drive a density to infinity.
    pixels: how images are read; dequantised by default, so that nats are those of the uint8 image.  `images.POINTS` for points.
  """

  def split(outputs):
    mean, log_var = jnp.split(outputs, 2, axis=-1)
    return mean, min_log_var + jax.nn.softplus(log_var - min_log_var)

  def log_prob(outputs, x):
    return normal_log_prob(x, *split(outputs)) - math.prod(x.shape[1:]) * pixels.log_levels

  def sample(key, outputs):
    mean, log_var = split(outputs)
    return pixels.write(mean + jnp.exp(log_var / 2) * random.normal(key, len(mean), mean.shape[1:]))

  return Likelihood(
    channels=2,
    observe=pixels.read,
    log_prob=log_prob,
    mean=lambda outputs: pixels.write(split(outputs)[0]),
    sample=sample,
  )


# What a trained VAE can do besides: encode, decode, and estimate log p(x) more tightly than by its bound.


def encode(module: VAE, key, state, pixels):
  """Mean and log-variance of q(z | x) for images [B, H, W, C], each [B, Z]."""
  code = lambda vae: vae.encode(vae.likelihood.observe(key, pixels), train=False)
  return nn.apply(code, module)(state.average.variables)


def decode(module: VAE, state, z):
  """Mean images of p(x | z) for latents [B, Z]."""
  return nn.apply(lambda vae: vae.likelihood.mean(vae.decode(z, train=False)), module)(state.average.variables)


class Evidence(NamedTuple):
  """An importance-sampled estimate of log p(x), per example.

  Its expectation is a lower bound that rises with the number of samples to log p(x) itself.
  """

  log_prob: jax.Array  # [B], nats
  stderr: jax.Array  # [B], nats: standard error of log_prob, to first order
  ess: jax.Array  # [B]: effective sample size, between 1 and the number of samples


def evidence(module: VAE, key, state, batch, num_samples: int = 200, chunk: int = 20) -> Evidence:
  """log p(x) ~ log mean_k p(x, z_k) / q(z_k | x), z_k from q (Burda et al. 2016, equation 8).

  Args:
    batch: images [B, H, W, C] under "image".
    num_samples: K, the number of z for each x, a multiple of `chunk`.
    chunk: how many of them are decoded at once; the memory is that of B * chunk decodings.
  """
  if num_samples % chunk:
    raise ValueError(f"num_samples {num_samples} is not a multiple of chunk {chunk}")
  estimate = lambda vae: _evidence(vae, key, batch["image"], num_samples // chunk, chunk)
  return nn.apply(estimate, module)(state.average.variables)


def measure(module: VAE, num_samples: int = 200) -> Callable:
  """All that can be said of p(x): `(key, state, batch) -> {name: [B]}` with the bound, its two parts, and the evidence.

  "nll" is minus the evidence of `num_samples` importance samples, "nll_stderr" its own error, both in nats; "ess" says how many
  of the samples count.
  """

  def evaluate(key, state, batch):
    bound_key, evidence_key = jax.random.split(key)
    (bound, parts), _ = run(module, negative_elbo(), state.average.variables, bound_key, batch, train=False)
    estimate = evidence(module, evidence_key, state, batch, num_samples, math.gcd(num_samples, 20))
    nll = {"nll": -estimate.log_prob, "nll_stderr": estimate.stderr, "ess": estimate.ess}
    return {**nll, "nll_bound": bound, **parts}

  return evaluate


def _evidence(vae: VAE, key, pixels, num_chunks: int, chunk: int) -> Evidence:
  data_key, latent_key = jax.random.split(key)
  x = vae.likelihood.observe(data_key, pixels)
  mean, log_var = vae.encode(x, train=False)

  def accumulate(sums, index):
    log_weight = _log_weights(vae, jax.random.fold_in(latent_key, index), x, mean, log_var, chunk)  # [B, chunk]
    both = jnp.stack([jax.nn.logsumexp(log_weight, 1), jax.nn.logsumexp(2 * log_weight, 1)])
    return jnp.logaddexp(sums, both), None

  start = jnp.full((2, len(x)), -jnp.inf)
  (log_sum, log_sum_squares), _ = jax.lax.scan(accumulate, start, jnp.arange(num_chunks))
  num_samples = num_chunks * chunk
  ess = jnp.exp(2 * log_sum - log_sum_squares)
  relative_variance = jnp.maximum(num_samples / ess - 1, 0.0)  # Var(w) / E[w]^2
  return Evidence(log_sum - math.log(num_samples), jnp.sqrt(relative_variance / num_samples), ess)


def _log_weights(vae: VAE, key, x, mean, log_var, chunk: int):
  """log p(x, z) - log q(z | x) for `chunk` draws of z each, [B, chunk]."""
  batch_size, num_latents = mean.shape
  repeat = lambda a: jnp.repeat(a, chunk, axis=0)  # [B * chunk, ...]
  noise = random.normal(key, batch_size, (chunk, num_latents)).reshape(-1, num_latents)
  z = repeat(mean) + jnp.exp(repeat(log_var) / 2) * noise
  log_joint = vae.likelihood.log_prob(vae.decode(z, train=False), repeat(x)) + standard_normal_log_prob(z)
  return (log_joint - normal_log_prob(z, repeat(mean), repeat(log_var))).reshape(batch_size, chunk)
