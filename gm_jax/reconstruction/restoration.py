"""A network that gives back what an image has lost: noise away, resolution, colour or a missing square restored.

    error(network(corrupt(x)), x)

This is a denoising autoencoder (Vincent et al. 2010) without a narrow code: nothing of the image has to go through one, so its
answer can be as sharp as what it was shown.  Corrupting and restoring again and again is a Markov chain whose states look
ever more like the data (Bengio et al. 2013, https://arxiv.org/abs/1305.6663); that is how it is sampled from, beginning at
a few training images that it keeps.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.reconstruction.autoencoder import Error, per_image, squared_error


class Restorer(nn.Module):
  """x [B, H, W, C], corrupted -> outputs [B, H, W, C]."""

  network: nn.Module  # (x, train) -> outputs
  error: Error = squared_error()
  num_kept: int = 64  # training images that samples begin at

  def __call__(self, x, train: bool):
    return self.network(x, train)

  @nn.compact
  def keep(self, pictures):
    """The first images that are ever seen, uint8 [num_kept, H, W, C]."""
    rows = jnp.arange(self.num_kept) % len(pictures)
    return self.variable("kept", "images", lambda: jnp.asarray(pictures)[rows]).value


def restoration(
  module: Restorer, optimizer: optax.GradientTransformation, corrupt: Callable, *, passes: int = 1, decay: float = 0.999
) -> GenerativeModel:
  """A restorer as a generative model; evaluate, on corrupted images, is that of `autoencoder`.

  Args:
    module: network, error, images to keep.
    optimizer: any optax transformation.
    corrupt: `(key, x in [0, 1]) -> x` (corruptions.py).
    passes: how often a sample is corrupted and restored.
    decay: of the average of the parameters.
  """

  def objective(module, key, batch, train):
    module.keep(batch["image"])
    x = images.to_unit(batch["image"])
    return per_image(module.error, module(corrupt(key, x), train), x)

  def sample(module, key, num, condition):
    del condition
    begin_key, chain_key = jax.random.split(key)
    kept = module.variables["kept"]["images"]
    x = images.to_unit(kept[random.randint(begin_key, num, (), 0, len(kept))])
    for index in range(passes):
      outputs = module(corrupt(jax.random.fold_in(chain_key, index), x), train=False)
      x = jnp.clip(module.error.mean(outputs), 0, 1)
    return images.from_unit(x)

  return from_objective(module, objective, sample, optimizer, reports="reconstruction", decay=decay)


def restore(module: Restorer, state, x):
  """Corrupted images x [B, H, W, C] in [0, 1] -> uint8, restored."""
  return images.from_unit(module.error.mean(module.apply(state.average.variables, x, False)))
