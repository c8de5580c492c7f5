"""Training by several draws of z for each x: importance weighted autoencoders, and better gradients for them.

    w_k = p(x, z_k) / q(z_k | x),    z_1, ..., z_K ~ q(z | x)
    log p(x)  >=  E[log mean_k w_k]  >=  E[mean_k log w_k],  the plain bound

The more draws, the tighter the bound (Burda et al. 2016, https://arxiv.org/abs/1509.00519) and the poorer the gradient of the
encoder: a bound that is nearly tight hardly depends on it any more (Rainforth et al. 2018, https://arxiv.org/abs/1802.04537).
So there are mixed bounds (`miwae`, `ciwae`), different bounds for the two networks (`piwae`), and gradients of the encoder
through z alone, without the noise of the score of q (`sticking_the_landing`, `doubly_reparameterized`).

Each objective goes into `vae.vae(..., objective=...)`, trains by K decodings for each x, and is evaluated by the plain bound.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.approximate import vae


def iwae(num: int):
  """-log mean_k w_k of `num` draws (Burda et al. 2016, equation 8); one draw is the plain bound, with its rate sampled."""
  return of_bound(num, log_mean_exp)


def miwae(groups: int, num: int):
  """The mean of the bounds of `groups` groups of `num` draws (Rainforth et al. 2018)."""
  return of_bound(groups * num, _mean_of_groups(groups))


def ciwae(beta: float, num: int):
  """beta times the plain bound and 1 - beta times the importance weighted one, by the same draws (Rainforth et al. 2018)."""
  return of_bound(num, lambda log_w: beta * log_w.mean(1) + (1 - beta) * log_mean_exp(log_w))


def piwae(groups: int, num: int):
  """The decoder by one bound of all groups * num draws, the encoder by `miwae(groups, num)` (Rainforth et al. 2018)."""
  every, grouped = _weights_of(log_mean_exp), _weights_of(_mean_of_groups(groups))
  return _two_headed(groups * num, every, grouped, path_only=False)


def sticking_the_landing(num: int = 1):
  """`iwae` whose encoder learns by the path through z alone: what is left out, the score of q, has mean zero for one draw
  (Roeder et al. 2017, https://arxiv.org/abs/1703.09194), and then the gradient vanishes, noise and all, where q is exact.

  For several draws the encoder's gradient is biased; `doubly_reparameterized` mends that.
  """
  return of_bound(num, log_mean_exp, path_only=True)


def doubly_reparameterized(num: int):
  """`iwae`, the encoder by the path through z alone, each draw weighing as the square of its share (Tucker et al. 2019,
  https://arxiv.org/abs/1810.04152): the same gradient on average, and no noise where q is exact."""
  shares = _weights_of(log_mean_exp)
  return _two_headed(num, shares, lambda log_w: shares(log_w) ** 2, path_only=True)


def log_mean_exp(log_w):
  """log mean_k w_k: [B, K] -> [B]."""
  return jax.nn.logsumexp(log_w, axis=1) - math.log(log_w.shape[1])


def of_bound(num: int, bound: Callable, path_only: bool = False):
  """The objective that raises a bound of your own.

  Args:
    num: K.
    bound: log weights [B, K] -> [B].
    path_only: whether q's parameters learn through z alone and not through the density of q.
  """

  def losses(log_weights, z, mean, log_var):
    log_w = log_weights(z, *_held(mean, log_var) if path_only else (mean, log_var))
    return -bound(log_w), log_w

  return _objective(num, losses)


def _two_headed(num: int, decoder_weights: Callable, encoder_weights: Callable, path_only: bool):
  """Gradients sum_k v_k d log w_k, with weights v (log w [B, K] -> [B, K]) that differ between the decoder with its prior and
  whatever z comes from.  An encoder that is also in the prior (VampPrior) learns there by the decoder's weights."""

  def losses(log_weights, z, mean, log_var):
    held = _held(mean, log_var)
    there = log_weights(_held(z)[0], *held)  # knows of the decoder only
    along = log_weights(z, *held if path_only else (mean, log_var))
    v, u = (weights(jax.lax.stop_gradient(there)) for weights in (decoder_weights, encoder_weights))
    # `along` and `there` have the same gradient for the decoder, so their difference has none.
    learns = (v * there + u * (along - there)).sum(1)
    value = log_mean_exp(there)
    return -(jax.lax.stop_gradient(value - learns) + learns), there

  return _objective(num, losses)


def _objective(num: int, losses: Callable):
  plain = vae.negative_elbo()

  def objective(model: vae.VAE, key, batch, train: bool):
    if not train:
      return plain(model, key, batch, train)
    data_key, latent_key = jax.random.split(key)
    label = batch.get("label")
    x = model.likelihood.observe(data_key, batch["image"])
    mean, log_var = model.encode(x, train, label)
    log_weights = lambda z, mean, log_var: vae.log_weights(model, z, x, label, mean, log_var, train)
    loss, log_w = losses(log_weights, vae.draws(latent_key, mean, log_var, num), mean, log_var)
    ess = jnp.exp(2 * jax.nn.logsumexp(log_w, 1) - jax.nn.logsumexp(2 * log_w, 1))
    return loss, {"nll_bound": -log_w.mean(1), "ess": ess}

  return objective


def _mean_of_groups(groups: int) -> Callable:
  return lambda log_w: log_mean_exp(log_w.reshape(len(log_w) * groups, -1)).reshape(-1, groups).mean(1)


def _weights_of(bound: Callable) -> Callable:
  """d bound / d log w_k: how much each draw counts, log w [B, K] -> [B, K]."""
  return jax.grad(lambda log_w: bound(log_w).sum())


def _held(*arrays):
  return jax.tree.map(jax.lax.stop_gradient, arrays)
