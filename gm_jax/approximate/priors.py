"""p(z): where a decoder's latents come from.

A standard normal asks of the encoder that its codes, over all the data, be standard normal too; where they are not, the bound
pays for it and samples come from where nothing was learnt.  A prior with parameters goes to where the codes are.  Then the rate

    log q(z | x) - log p(z)        at the z that was drawn

has no closed form; its mean over draws is KL(q || p) still, and its gradient is what the prior learns by.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.distributions import kl_to_standard_normal, mixture_log_prob, normal_log_prob, standard_normal_log_prob
from gm_jax.networks.masked import MaskedMLP, raster
from gm_jax.networks.mlp import MLP


class Prior(nn.Module):
  """A law of z with parameters or without.  `encode`, x -> mean and log-variance of q(z | x), is there for those who use it."""

  def log_prob(self, z, encode: Callable):
    """log p(z) of z [B, Z]: nats [B]."""
    raise NotImplementedError

  def sample(self, key, num: int, num_latents: int, encode: Callable):
    """Draws from p(z), [num, Z]."""
    raise NotImplementedError

  def rates(self, z, mean, log_var, encode: Callable):
    """The rate in as many parts as it falls into, nats [B, G]: at the z drawn from q, or KL(q || p) where it is known."""
    return (normal_log_prob(z, mean, log_var) - self.log_prob(z, encode))[:, None]


class StandardNormal(Prior):
  """N(0, I); its rate is exact and falls into the latents, [B, Z]."""

  def log_prob(self, z, encode):
    del encode
    return standard_normal_log_prob(z)

  def sample(self, key, num, num_latents, encode):
    del encode
    return random.normal(key, num, (num_latents,))

  def rates(self, z, mean, log_var, encode):
    del z, encode
    return kl_to_standard_normal(mean.reshape(-1, 1), log_var.reshape(-1, 1)).reshape(mean.shape)


class Mixture(Prior):
  """A mixture of Gaussians with diagonal covariances; who inherits says which, in `components`."""

  def components(self, num_latents: int, encode: Callable):
    """Log weights [K], means and log-variances [K, Z]."""
    raise NotImplementedError

  def log_prob(self, z, encode):
    log_weights, means, log_vars = self.components(z.shape[1], encode)
    of_one = lambda mean, log_var: normal_log_prob(z, mean[None], log_var[None])
    return mixture_log_prob(log_weights, jax.vmap(of_one, out_axes=1)(means, log_vars))

  def sample(self, key, num, num_latents, encode):
    which_key, noise_key = jax.random.split(key)
    log_weights, means, log_vars = self.components(num_latents, encode)
    which = random.categorical(which_key, jnp.broadcast_to(log_weights[None], (num, len(log_weights))))
    return means[which] + jnp.exp(log_vars[which] / 2) * random.normal(noise_key, num, (num_latents,))


class GaussianMixture(Mixture):
  """Weights, means and variances are learnt."""

  num_components: int

  @nn.compact
  def components(self, num_latents, encode):
    del encode
    size, zeros = (self.num_components, num_latents), nn.initializers.zeros_init()
    logits = self.param("logits", zeros, (self.num_components,))
    # At one place all components would have the same gradient, and stay together.
    means = self.param("means", nn.initializers.normal(1.0), size)
    return nn.log_softmax(logits), means, self.param("log_vars", zeros, size)


class VampPrior(Mixture):
  """The average of the encoder's own answers to pseudo-inputs, which are learnt (Tomczak & Welling 2018).

  The best prior of all is the average of q(z | x) over the data; this one is that of a data set of `num_inputs` images.

  Attributes:
    num_inputs: K.
    shape: (H, W, C).
    squash: real numbers -> the range of x as the likelihood reads it: [0, 1] for a sigmoid, as black and white pixels or
      dequantised ones have; `jnp.tanh` for [-1, 1].
  """

  num_inputs: int
  shape: Sequence[int]
  squash: Callable = nn.sigmoid

  @nn.compact
  def components(self, num_latents, encode):
    del num_latents
    inputs = self.param("inputs", nn.initializers.normal(1.0), (self.num_inputs, *self.shape))
    means, log_vars = encode(self.squash(inputs))
    return jnp.full(self.num_inputs, -math.log(self.num_inputs)), means, log_vars


class CouplingFlow(Prior):
  """Standard normal noise sent through affine couplings, which move half of the latents by what the other half says.

  Exact both ways (Dinh et al. 2017, https://arxiv.org/abs/1605.08803; as a prior, Huang et al. 2017), and the standard normal
  itself before it is trained.
  """

  num_layers: int = 4
  hidden: Sequence[int] = (64,)

  def setup(self):
    self.couplings = [Coupling(self.hidden) for _ in range(self.num_layers)]

  def noise(self, z):
    """The noise that z [B, Z] comes from, and the log-determinant of d noise / d z: [B, Z], [B]."""
    log_det = jnp.zeros(len(z))
    for index, coupling in enumerate(self.couplings):
      kept = _kept(index, z.shape[1])
      shift, log_scale = coupling(z * kept)
      z = z * kept + (z - shift) * jnp.exp(-log_scale) * (1 - kept)
      log_det = log_det - (log_scale * (1 - kept)).sum(1)
    return z, log_det

  def log_prob(self, z, encode):
    del encode
    noise, log_det = self.noise(z)
    return standard_normal_log_prob(noise) + log_det

  def sample(self, key, num, num_latents, encode):
    del encode
    z = random.normal(key, num, (num_latents,))
    for index, coupling in reversed(list(enumerate(self.couplings))):
      kept = _kept(index, num_latents)
      shift, log_scale = coupling(z * kept)
      z = z * kept + (z * jnp.exp(log_scale) + shift) * (1 - kept)
    return z


class Coupling(nn.Module):
  """The kept latents [B, Z], zero elsewhere -> shift and log-scale of the others, each [B, Z]; log-scales in (-2, 2)."""

  hidden: Sequence[int]

  @nn.compact
  def __call__(self, kept):
    features = nn.tanh(MLP(self.hidden, nn.tanh)(kept))
    shift, log_scale = jnp.split(nn.Dense(2 * kept.shape[1], kernel_init=nn.initializers.zeros_init())(features), 2, axis=-1)
    return shift, 2 * nn.tanh(log_scale / 2)


class AutoregressiveFlow(Prior):
  """Standard normal noise, each number of it scaled and shifted by what the numbers of z before it say.

  Masked autoregressive flows (Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057; as a prior, Chen et al. 2017): the
  density takes one pass of each layer, a draw one for each latent.  Every second layer goes through the latents backwards.
  The standard normal itself before it is trained.
  """

  num_layers: int = 2
  hidden: Sequence[int] = (64,)

  @nn.compact
  def layers(self, num_latents: int) -> list[Callable]:
    """For each layer z [B, Z] -> shift and log-scale, each [B, Z], of which entry d depends on what is before d alone."""
    return [self._layer(index, num_latents) for index in range(self.num_layers)]

  def _layer(self, index: int, num_latents: int) -> Callable:
    shift, log_scale = (MaskedMLP(num_latents, self.hidden, nn.tanh, name=f"{name}_{index}") for name in ("shift", "scale"))
    gains = self.param(f"gains_{index}", nn.initializers.zeros_init(), (2, num_latents))
    degrees = raster(num_latents, self.hidden)
    if index % 2:
      degrees = degrees._replace(inputs=degrees.inputs[::-1])

    def conditions(z):
      told = (network(z, degrees, False) * gain[None] for network, gain in zip((shift, log_scale), gains))
      moved, scaled = told
      return moved, 2 * nn.tanh(scaled / 2)

    return conditions

  def noise(self, z):
    """The noise that z [B, Z] comes from, and the log-determinant of d noise / d z: [B, Z], [B]."""
    log_det = jnp.zeros(len(z))
    for conditions in self.layers(z.shape[1]):
      shift, log_scale = conditions(z)
      z, log_det = (z - shift) * jnp.exp(-log_scale), log_det - log_scale.sum(1)
    return z, log_det

  def log_prob(self, z, encode):
    del encode
    noise, log_det = self.noise(z)
    return standard_normal_log_prob(noise) + log_det

  def sample(self, key, num, num_latents, encode):
    del encode
    z = random.normal(key, num, (num_latents,))
    for conditions in reversed(self.layers(num_latents)):
      noise, z = z, jnp.zeros_like(z)
      for _ in range(num_latents):  # each time one latent more is right, and never changes again
        shift, log_scale = conditions(z)
        z = noise * jnp.exp(log_scale) + shift
    return z


def _kept(index: int, num_latents: int):
  """Every second latent, the others in the next coupling: zeros and ones [1, Z]."""
  return ((jnp.arange(num_latents) + index) % 2).astype(jnp.float32)[None]
