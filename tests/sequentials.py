"""One small model of each kind that has conditionals, with random parameters, and images of its levels."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import core, images
from gm_jax.core import GenerativeModel
from gm_jax.networks import masked, pixelcnn
from gm_jax.networks.masked import MaskedMLP
from gm_jax.tractable import autoregressive, chow_liu, counting, fvsbn, made, mixture, nade, sequential
from gm_jax.tractable.sequential import Sequential


class Kind(NamedTuple):
  make: Callable  # shape -> (GenerativeModel, Sequential)
  shape: tuple = (4, 3, 1)
  levels: int = 2


class Made(NamedTuple):
  model: GenerativeModel
  sequential: Sequential
  state: object


def counted(parents, levels=2, **options):
  def make(shape):
    graph = parents(shape)
    fit = lambda state: counting.fit(graph, state, levels=levels, **options)
    return counting.counted(graph, levels, **options), sequential.tables(fit, levels)

  return make


def tree(levels):
  return lambda shape: (chow_liu.chow_liu(levels), sequential.tables(chow_liu.fit, levels))


def bernoullis(shape):
  component = mixture.bernoulli()
  return mixture.mixture(component, 5, 1e-2), sequential.bernoulli_mixture(lambda state: mixture.fit(component, state, 1e-2))


def network(module, output, scan=None):
  def make(shape):
    built = module(output.width(shape[-1]), shape[-1])
    model = autoregressive.autoregressive(built, output, optax.adam(1e-2), shape, scan=scan)
    return model, sequential.network(built, output, shape, scan)

  return make


def flat(module, model):
  return lambda shape: (model(optax.adam(1e-2), shape), sequential.flat(module(shape), shape))


def masked_network(shape):
  built = MaskedMLP(pixels(shape), (7,), direct=True)
  degrees = masked.shuffled(jax.random.key(5), pixels(shape), built.hidden)
  orders = made.several(jax.tree.map(lambda leaf: leaf[None], degrees))
  return made.made(built, orders, optax.adam(1e-2), shape), sequential.masked(built, degrees)


def plain(outputs, channels):
  return pixelcnn.PixelCNN(outputs, features=4 * channels, blocks=1)


def gated(outputs, channels):
  return pixelcnn.GatedPixelCNN(outputs, channels, features=4 * channels, blocks=1)


pixels = lambda shape: shape[0] * shape[1] * shape[2]
make_nade = lambda shape: nade.NADE(pixels(shape), num_hidden=6)

KINDS = {
  "neighbourhood": Kind(counted(lambda shape: counting.neighbourhood(shape, 4), back_off=(2,))),
  "bytes": Kind(counted(counting.factorised, 256), (2, 2, 1), 256),
  "colours": Kind(counted(lambda shape: counting.neighbourhood(shape, 1), 3), (3, 3, 2), 3),
  "tree": Kind(tree(4), (3, 3, 1), 4),
  "mixture": Kind(bernoullis),
  "plain network": Kind(network(plain, autoregressive.bernoulli(), pixelcnn.cached())),
  "colour network": Kind(network(gated, autoregressive.categorical(3), pixelcnn.gated_cached()), (2, 3, 2), 3),
  "whole passes": Kind(network(plain, autoregressive.categorical(4)), (3, 3, 1), 4),
  "fvsbn": Kind(flat(lambda shape: fvsbn.FVSBN(pixels(shape)), fvsbn.fvsbn)),
  "made in any order": Kind(masked_network),
  "nade": Kind(flat(make_nade, lambda optimizer, shape: nade.nade(make_nade(shape), optimizer, shape))),
}


def pictures(kind: str, num: int, seed: int = 0) -> np.ndarray:
  """Noise of the kind's levels, uint8 [num, H, W, C]."""
  _, shape, levels = KINDS[kind]
  return np.array(images.from_levels(np.random.default_rng(seed).integers(0, levels, (num, *shape)), levels))


@functools.cache
def trained(kind: str) -> Made:
  """Tables and mixtures after three steps on brighter noise; networks at random, which costs no compilation of gradients."""
  make, *_ = KINDS[kind]
  model, conditionals = make(KINDS[kind].shape)
  batch = {"image": jnp.asarray(np.maximum(pictures(kind, 40), np.roll(pictures(kind, 40), 1, axis=2)))}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  if isinstance(state, core.State):
    leaves, shape = jax.tree.flatten(state.average.variables)
    rng = np.random.default_rng(0)
    noisy = [leaf + rng.normal(0, 0.5, leaf.shape).astype(np.float32) for leaf in leaves]
    return Made(model, conditionals, state._replace(average=core.Average(jax.tree.unflatten(shape, noisy), jnp.zeros(()))))
  step = jax.jit(model.step)
  for index in range(3):
    state, _ = step(jax.random.key(index), state, batch)
  return Made(model, conditionals, state)
