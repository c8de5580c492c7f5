"""The variational autoencoder: an encoder that proposes a Gaussian over z, a decoder that explains x by z, one bound for both.

    log p(x)  >=  E_q(z|x) [log p(x | z)]  -  KL(q(z | x) || p(z))
    nll_bound  =       distortion          +        rate                                       in nats

Kingma & Welling 2014 (https://arxiv.org/abs/1312.6114).  What p(x | z) may be is in likelihoods.py, p(z) in priors.py, and what
the rate may cost in training in costs.py; tighter bounds to train by are in importance.py.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import random
from gm_jax.approximate.costs import count_step, weighted
from gm_jax.approximate.likelihoods import Likelihood, bernoulli, gaussian
from gm_jax.approximate.priors import Prior, StandardNormal
from gm_jax.core import GenerativeModel, from_objective, run
from gm_jax.distributions import normal_log_prob

__all__ = [
  "VAE",
  "Evidence",
  "Likelihood",
  "ancestral_sample",
  "bernoulli",
  "decode",
  "draws",
  "encode",
  "evidence",
  "gaussian",
  "log_weights",
  "mean_sample",
  "measure",
  "negative_elbo",
  "reparameterize",
  "vae",
]


class VAE(nn.Module):
  """q(z | x) = N(mean(x), diag exp(log_var(x))), p(z) by the prior, p(x | z) by the likelihood.

  Whoever calls passes the labels of the batch on, if it has any; this VAE does not read them, `conditional_vae` does.
  """

  encoder: nn.Module  # (x [B, H, W, C], train) -> features [B, F]
  decoder: nn.Module  # (z [B, Z], train) -> outputs [B, H, W, C * likelihood.channels]
  likelihood: Likelihood
  num_latents: int
  prior: Prior = StandardNormal()

  def setup(self):
    self.posterior = nn.Dense(2 * self.num_latents)

  def encode(self, x, train: bool, label=None):
    """Mean and log-variance of q(z | x), each [B, Z]."""
    del label
    return jnp.split(self.posterior(self.encoder(x, train)), 2, axis=-1)

  def decode(self, z, train: bool, label=None):
    del label
    return self.decoder(z, train)

  def encode_pseudo(self, x, train: bool):
    """q(z | x) of images that are no data: of a prior's pseudo-inputs."""
    return self.encode(x, train)

  def choose_labels(self, key, num: int, condition):
    """Of samples: what was asked for, and nothing otherwise."""
    del key, num
    return condition

  def rates(self, z, mean, log_var, train: bool):
    """Nats [B, G]; their sum over G is the rate."""
    return self.prior.rates(z, mean, log_var, functools.partial(self.encode_pseudo, train=train))

  def log_prior(self, z, train: bool):
    return self.prior.log_prob(z, functools.partial(self.encode_pseudo, train=train))

  def sample_prior(self, key, num: int):
    return self.prior.sample(key, num, self.num_latents, functools.partial(self.encode_pseudo, train=False))


def negative_elbo(cost: Callable | None = None):
  """The objective.  `cost` (costs.py) is what the rate costs in training only: what is evaluated is always the bound itself."""
  cost = cost or weighted(1.0)

  def objective(vae: VAE, key, batch, train: bool):
    data_key, latent_key = jax.random.split(key)
    label = batch.get("label")
    x = vae.likelihood.observe(data_key, batch["image"])
    mean, log_var = vae.encode(x, train, label)
    z = reparameterize(latent_key, mean, log_var)
    distortion = -vae.likelihood.log_prob(vae.decode(z, train, label), x)  # [B]
    rates = vae.rates(z, mean, log_var, train)  # [B, G]
    rate = rates.sum(1)
    paid = cost(rates, functools.partial(count_step, vae)) if train else rate
    return distortion + paid, {"distortion": distortion, "rate": rate}

  return objective


def reparameterize(key, mean, log_var):
  """z ~ N(mean, exp(log_var)) as a differentiable function of its parameters, [B, Z]."""
  return mean + jnp.exp(log_var / 2) * random.normal(key, len(mean), mean.shape[1:])


def mean_sample(vae: VAE, key, num: int, condition=None):
  """z from the prior, then the mean of p(x | z): the pictures that papers show.  [num, H, W, C]"""
  return vae.likelihood.mean(_sample_outputs(vae, key, num, condition))


def ancestral_sample(vae: VAE, key, num: int, condition=None):
  """z from the prior, then x from p(x | z): draws from the model itself.  [num, H, W, C]"""
  outputs_key, pixel_key = jax.random.split(key)
  return vae.likelihood.sample(pixel_key, _sample_outputs(vae, outputs_key, num, condition))


def _sample_outputs(vae: VAE, key, num: int, condition):
  label_key, latent_key = jax.random.split(key)
  label = vae.choose_labels(label_key, num, condition)
  return vae.decode(vae.sample_prior(latent_key, num), train=False, label=label)


def vae(
  module: VAE,
  optimizer: optax.GradientTransformation,
  *,
  beta: float | Callable = 1.0,
  objective: Callable | None = None,
  sample: Callable = mean_sample,
  decay: float = 0.999,
) -> GenerativeModel:
  """A VAE as a generative model; evaluate returns `nll_bound`, `distortion` and `rate`, in nats.

  Args:
    module: networks, likelihood, number of latents and prior.
    optimizer: one, for encoder, decoder and prior together.
    beta: weight of the rate while training, a number or a schedule (`costs.weighted`).
    objective: what to train by instead: `negative_elbo(cost)`, or one of importance.py.  It is evaluated by the plain bound.
    sample: `mean_sample` or `ancestral_sample`.
    decay: of the average of the parameters.
  """
  objective = objective or negative_elbo(weighted(beta))
  return from_objective(module, objective, sample, optimizer, reports="nll_bound", decay=decay)


# What a trained VAE can do besides: encode, decode, and estimate log p(x) more tightly than by its bound.


def encode(module: VAE, key, state, pixels, label=None):
  """Mean and log-variance of q(z | x) for images [B, H, W, C], each [B, Z]; labels int32 [B] where the VAE is conditional."""
  code = lambda vae: vae.encode(vae.likelihood.observe(key, pixels), train=False, label=label)
  return nn.apply(code, module)(state.average.variables)


def decode(module: VAE, state, z, label=None):
  """Mean images of p(x | z) for latents [B, Z]; labels int32 [B] where the VAE is conditional."""
  return nn.apply(lambda vae: vae.likelihood.mean(vae.decode(z, train=False, label=label)), module)(state.average.variables)


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
    batch: images [B, H, W, C] under "image"; with the labels of a conditional VAE, log p(x | label).
    num_samples: K, the number of z for each x, a multiple of `chunk`.
    chunk: how many of them are decoded at once; the memory is that of B * chunk decodings.
  """
  if num_samples % chunk:
    raise ValueError(f"num_samples {num_samples} is not a multiple of chunk {chunk}")
  estimate = lambda vae: _evidence(vae, key, batch, num_samples // chunk, chunk)
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


def _evidence(vae: VAE, key, batch, num_chunks: int, chunk: int) -> Evidence:
  data_key, latent_key = jax.random.split(key)
  x, label = vae.likelihood.observe(data_key, batch["image"]), batch.get("label")
  mean, log_var = vae.encode(x, train=False, label=label)

  def log_weight(index):
    z = draws(jax.random.fold_in(latent_key, index), mean, log_var, chunk)
    return log_weights(vae, z, x, label, mean, log_var, train=False)

  return accumulate(log_weight, len(x), num_chunks, chunk)


def accumulate(log_weight: Callable, num: int, num_chunks: int, chunk: int) -> Evidence:
  """The evidence for `num` x from log weights that come in chunks: `log_weight`, index -> nats [num, chunk]."""

  def add(sums, index):
    log_w = log_weight(index)
    both = jnp.stack([jax.nn.logsumexp(log_w, 1), jax.nn.logsumexp(2 * log_w, 1)])
    return jnp.logaddexp(sums, both), None

  (log_sum, log_sum_squares), _ = jax.lax.scan(add, jnp.full((2, num), -jnp.inf), jnp.arange(num_chunks))
  num_samples = num_chunks * chunk
  ess = jnp.exp(2 * log_sum - log_sum_squares)
  relative_variance = jnp.maximum(num_samples / ess - 1, 0.0)  # Var(w) / E[w]^2
  return Evidence(log_sum - math.log(num_samples), jnp.sqrt(relative_variance / num_samples), ess)


def draws(key, mean, log_var, num: int):
  """`num` draws of z for each x, differentiable: [B, num, Z]."""
  noise = random.normal(key, len(mean), (num, *mean.shape[1:]))
  return mean[:, None] + jnp.exp(log_var / 2)[:, None] * noise


def log_weights(vae: VAE, z, x, label, mean, log_var, train: bool):
  """log p(x, z) - log q(z | x) for K of z each: z [B, K, Z], q's mean and log-variance [B, Z] -> nats [B, K]."""
  batch_size, num, _ = z.shape
  z, repeat = z.reshape(batch_size * num, -1), lambda a: jnp.repeat(a, num, axis=0)  # [B * K, ...]
  label = None if label is None else repeat(label)
  log_joint = vae.likelihood.log_prob(vae.decode(z, train, label), repeat(x)) + vae.log_prior(z, train)
  return (log_joint - normal_log_prob(z, repeat(mean), repeat(log_var))).reshape(batch_size, num)
