"""Spectral normalisation: weights divided by their largest singular value (Miyato et al. 2018).

A layer x W of which that value is 1 stretches no difference between two inputs, so a critic of such layers and of rectifiers is
1-Lipschitz, up to what a convolution's kernel as a matrix [h w I, O] says of the convolution.  It needs no penalty, and no
second derivative.

The value is u' W v, of the singular vectors u and v; its derivative is u v', so they are held fixed in the gradient.  Training
finds them by power iteration, one turn per call: the weights change little between two calls, and the vector of the last one,
kept in the collection "spectral", is a good start.  Evaluation computes them from the weights alone, exactly.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.conv import Conv
from gm_jax.networks.players import Critic, judged


class SpectralNorm(Critic):
  """A critic or a generator, all of whose weights of two axes or more are normalised; it is called as `player` is.

  A step that calls a critic twice, with data and with fakes, takes two turns of the iteration.
  """

  player: nn.Module

  @nn.compact
  def _normalised(self, function, x, train: bool, label, more):
    return _with_unit_weights(self, lambda player: function(player, x, train, *label, **more), self.player, train)

  def judge(self, x, train: bool, *label, **more):
    return self._normalised(judged, x, train, label, more)

  def __call__(self, x, train: bool, *label, **more):
    return self._normalised(lambda player, *inputs, **more: player(*inputs, **more), x, train, label, more)


class SpectralLayer(nn.Module):
  """One layer, `layer(x)`, whose weights are normalised; called with `(x, train)`."""

  layer: nn.Module

  @nn.compact
  def __call__(self, x, train: bool):
    return _with_unit_weights(self, lambda layer: layer(x), self.layer, train)


def spectral_dense(features: int, **fields) -> SpectralLayer:
  """`flax.linen.Dense` with unit weights; makes a layer of the module that calls it."""
  return SpectralLayer(nn.Dense(features, **fields))


def spectral_conv(features: int, kernel_size: int, *arguments, **fields) -> SpectralLayer:
  """`gm_jax.networks.conv.Conv` with unit weights; makes a layer of the module that calls it."""
  return SpectralLayer(Conv(features, kernel_size, *arguments, **fields))


def _with_unit_weights(owner: nn.Module, function, module: nn.Module, train: bool):
  """`function(module)`, where the module's weights are divided by their largest singular values; `owner` keeps the vectors."""

  def normalise(path, weight):
    if weight.ndim < 2:
      return weight
    matrix = weight.reshape(-1, weight.shape[-1])
    name = ".".join(entry.key for entry in path[1:])  # below "params"
    start = lambda: _unit(jax.random.normal(owner.make_rng("params"), matrix.shape[-1:]))
    right = owner.variable("spectral", name, start)
    if owner.is_initializing():
      return weight  # what goes in then is what is kept
    fixed = jax.lax.stop_gradient(matrix)
    if train:
      left = _unit(fixed @ right.value)
      v = right.value = _unit(left @ fixed)
    else:
      left, v = _singular_vectors(fixed)
    return weight / (left @ matrix @ v)

  normalised = lambda params: jax.tree_util.tree_map_with_path(normalise, params)
  return nn.map_variables(function, "params", normalised, init=owner.is_initializing())(module)


def _singular_vectors(matrix):
  """Of the largest singular value of [I, O]: u [I] and v [O], by the smaller of the two Gram matrices."""
  if matrix.shape[0] < matrix.shape[1]:
    v, u = _singular_vectors(matrix.T)
    return u, v
  v = jnp.linalg.eigh(jnp.matmul(matrix.T, matrix, precision="highest"))[1][:, -1]
  return _unit(matrix @ v), v


def _unit(x):
  return x / (jnp.linalg.norm(x) + 1e-12)
