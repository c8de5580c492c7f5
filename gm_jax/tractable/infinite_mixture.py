"""An infinite mixture: one Gaussian for every z, weighed by the law of z, and the sum over all of them taken by quadrature.

    p(x) = integral of p(z) p(x | z) dz  ~  sum_j w_j p(x | z_j),        p(x | z) = N(x; mean(z), diag exp(log_var(z)))

A finite mixture lists its components; here a function of z, a network as a rule, makes as many as there are numbers.  With one
or two latent dimensions the integral is a sum over nodes z_j: Gauss-Legendre where z is uniform, Gauss-Hermite where it is
normal.  The error falls faster than any power of their number once neighbouring nodes make components that overlap, so log p(x)
is known, not bounded; take twice the nodes to see it.  They pass through the network once for a whole batch.

This is the variational autoencoder with nothing approximate.  In more dimensions no grid of nodes is large enough; a VAE then
replaces the exact posterior p(z | x) by an encoder's guess q, and log p(x) by the bound that `nll_bound` computes here for any
q: it is too high by KL(q || p(z | x)), and by nothing else.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import core, distributions, images, random
from gm_jax.tractable.components import each


class Latent(NamedTuple):
  """The law of z and the nodes of its quadrature.

  Attributes:
    nodes: float32 [J, Z].
    log_weights: float32 [J]; E[f(z)] is the sum of exp(log_weights) * f(nodes), and the weights sum to one.
    log_prob: `z [N, Z] -> [N]`, the log density.
    sample: `(key, num) -> z [num, Z]`.
  """

  nodes: np.ndarray
  log_weights: np.ndarray
  log_prob: Callable
  sample: Callable


def uniform(num_nodes: int = 64, num_latents: int = 1) -> Latent:
  """z uniform on the unit interval (or square): `num_nodes` of Gauss-Legendre in each of `num_latents` directions."""
  nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
  inside = lambda z: jnp.where(((z >= 0) & (z <= 1)).all(1), 0.0, -jnp.inf)
  sample = lambda key, num: random.uniform(key, num, (num_latents,))
  return Latent(*_tensor((nodes + 1) / 2, weights / 2, num_latents), inside, sample)


def normal(num_nodes: int = 64, num_latents: int = 1) -> Latent:
  """z standard normal: `num_nodes` of Gauss-Hermite in each of `num_latents` directions, 256 at most in each."""
  if num_nodes > 256:
    raise ValueError(f"{num_nodes} nodes of Gauss-Hermite: far beyond 256 the outer weights leave the range of floats")
  nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
  sample = lambda key, num: random.normal(key, num, (num_latents,))
  return Latent(*_tensor(nodes, weights / weights.sum(), num_latents), distributions.standard_normal_log_prob, sample)


class MeanAndVariance(nn.Module):
  """A network [..., Z] -> [..., 2 * D] read as the mean and the log-variance of x given z, each [..., D].

  The log-variance is softly kept above `min_log_var`: a component that narrows faster than nodes are dense would pass between
  them, and a density that shrinks onto one example has no bound.
  """

  network: nn.Module
  min_log_var: float = -8.0

  def __call__(self, z):
    mean, log_var = jnp.split(self.network(z), 2, axis=-1)
    return mean, self.min_log_var + jax.nn.softplus(log_var - self.min_log_var)


class InfiniteMixture(nn.Module):
  """The law of z, the Gaussian that each z makes, and how images are read."""

  latent: Latent
  decoder: Callable  # z [N, Z] -> mean [N, D], log-variance [N, D]: a flax module, or a function
  shape: tuple[int, ...]  # of an example, [H, W, C]; D = H * W * C
  pixels: images.Pixels = images.POINTS

  def log_joint(self, key, pictures):
    """log w_j + log p(image | z_j) in nats, for images [B, H, W, C] and every node: [B, J]."""
    x = self.pixels.read(key, pictures).reshape(len(pictures), -1)
    one = lambda mean, log_var: distributions.normal_log_prob(x, mean[None], log_var[None])
    # Remembering every node's difference to every example for the gradient would be the one thing here that is large.
    log_prob = each(jax.checkpoint(one), self.decoder(jnp.asarray(self.latent.nodes)), x).T
    return jnp.asarray(self.latent.log_weights)[None] + log_prob - x.shape[1] * self.pixels.log_levels

  def draw(self, key, num: int):
    """z, then x given z: images [num, H, W, C]."""
    latent_key, pixel_key = jax.random.split(key)
    mean, log_var = self.decoder(self.latent.sample(latent_key, num))
    x = mean + jnp.exp(log_var / 2) * random.normal(pixel_key, num, mean.shape[1:])
    return self.pixels.write(x.reshape(num, *self.shape))


def infinite_mixture(
  module: InfiniteMixture, optimizer: optax.GradientTransformation, *, decay: float = 0.999
) -> core.GenerativeModel:
  """Maximum likelihood by gradient descent; evaluate returns `nll`.

  Args:
    module: the latent law, the decoder, and what an example looks like.
    optimizer: of the decoder's parameters.
    decay: of their average.
  """

  def objective(mixture: InfiniteMixture, key, batch, train: bool):
    del train
    return -jax.nn.logsumexp(mixture.log_joint(key, batch["image"]), axis=1), {}

  def sample(mixture: InfiniteMixture, key, num: int, condition=None):
    del condition
    return mixture.draw(key, num)

  return core.from_objective(module, objective, sample, optimizer, reports="nll", decay=decay)


# The bridge to the variational autoencoder.


def log_joint(module: InfiniteMixture, key, state: core.State, pictures):
  """log p(image, z_j) on the nodes, [B, J], in nats: its log-sum-exp over j is log p(image)."""
  return nn.apply(lambda mixture: mixture.log_joint(key, pictures), module)(state.average.variables)


def log_posterior(joint):
  """log p(z_j | x) on the nodes: `log_joint` [B, J] -> [B, J], whose exponentials sum to one over j."""
  return jax.nn.log_softmax(joint, axis=1)


def nll_bound(joint, log_q):
  """E_q[log q(z | x) - log p(x, z)], minus the evidence lower bound, [B]: at least the nll, and equal to it at the posterior.

  Both arguments [B, J]: `log_joint`, and a law on the nodes, whose exponentials sum to one over j (see `on_nodes`).
  """
  q = jnp.exp(log_q)
  return jnp.where(q > 0, q * (log_q - joint), 0.0).sum(1)  # what q never proposes costs nothing


def on_nodes(latent: Latent, log_density):
  """A density q(z | x) as a law on the nodes: log q(z_j | x) [B, J] -> [B, J], normalised there."""
  density_ratio = log_density - latent.log_prob(jnp.asarray(latent.nodes))[None]
  return jax.nn.log_softmax(jnp.asarray(latent.log_weights)[None] + density_ratio, axis=1)


def _tensor(nodes, weights, num_latents: int):
  """The product of one rule with itself: nodes [J, num_latents] and log-weights [J], J = len(nodes) ** num_latents."""
  if num_latents not in (1, 2):
    raise ValueError(f"{num_latents} latent dimensions: quadrature takes 1 or 2, and beyond them there is the VAE")
  grid = np.stack(np.meshgrid(*[nodes] * num_latents, indexing="ij"), -1).reshape(-1, num_latents)
  log_weights = sum(np.meshgrid(*[np.log(weights)] * num_latents, indexing="ij")).reshape(-1)
  return grid.astype(np.float32), log_weights.astype(np.float32)
