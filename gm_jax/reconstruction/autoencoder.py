"""The autoencoder: an image to a code and back.

    error(decode(encode(x)), x)                               plain; linear layers find the principal directions
    error(decode(encode(corrupted x)), x)                     denoising (Vincent et al. 2010)
    error(...) + penalty(code)                                sparse, contractive

Bourlard & Kamp 1988 for the linear one; Vincent et al. 2010 (https://jmlr.org/papers/v11/vincent10a.html) for corruptions,
which corruptions.py has; penalties.py has the penalties.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.reconstruction import codes


class Error(NamedTuple):
  """How far a reconstruction is from an image.

  Attributes:
    score: `(outputs, x in [0, 1]) -> [..., H, W, C]`, of each dimension.
    mean: `outputs -> x in [0, 1]`, the reconstruction.
  """

  score: Callable
  mean: Callable


def squared_error() -> Error:
  """(output - x)^2."""
  return Error(lambda outputs, x: jnp.square(outputs - x), lambda outputs: outputs)


def absolute_error() -> Error:
  """|output - x|: its best answer to doubt is the median, where the squared error's is the mean."""
  return Error(lambda outputs, x: jnp.abs(outputs - x), lambda outputs: outputs)


def cross_entropy() -> Error:
  """-x log p - (1 - x) log(1 - p) in nats, outputs are logits of p; at least the entropy of a coin with mean x."""
  return Error(lambda logits, x: nn.softplus(logits) - x * logits, nn.sigmoid)


def kl_divergence() -> Error:
  """KL(x || p) of two coins in nats: the cross-entropy less what no p can avoid, so zero where all is right."""
  entropy = lambda x: -jax.scipy.special.xlogy(x, x) - jax.scipy.special.xlogy(1 - x, 1 - x)
  return Error(lambda logits, x: nn.softplus(logits) - x * logits - entropy(x), nn.sigmoid)


class Autoencoder(nn.Module):
  """encode: x [B, H, W, C] in [0, 1] -> z [B, num_codes];  decode: z -> outputs [B, H, W, C]."""

  encoder: nn.Module  # (x, train) -> features [B, F]
  decoder: nn.Module  # (z, train) -> outputs
  num_codes: int
  error: Error = squared_error()
  activation: Callable = lambda z: z  # of the code: nn.sigmoid for rates, nn.relu, ...

  def setup(self):
    self.code = nn.Dense(self.num_codes)
    self.moments = self.variable("codes", "moments", codes.nothing, self.num_codes)

  def encode(self, x, train: bool):
    return self.activation(self.code(self.encoder(x, train)))

  def decode(self, z, train: bool):
    return self.decoder(z, train)

  def follow(self, z):
    """Remember where the codes of the training data lie."""
    if not self.is_initializing():
      self.moments.value = codes.follow(self.moments.value, z)


def reconstruction(corrupt: Callable | None = None, penalties: Sequence[Callable] = ()):
  """The objective: what is read is corrupted, what is wanted is clean; penalties count in training only.

  Args:
    corrupt: `(key, x [B, H, W, C] in [0, 1]) -> x`, or None.
    penalties: `(autoencoder, key, x that was encoded, z) -> [B]` each.
  """

  def objective(autoencoder: Autoencoder, key, batch, train: bool):
    corruption_key, *penalty_keys = jax.random.split(key, 1 + len(penalties))
    x = images.to_unit(batch["image"])
    seen = corrupt(corruption_key, x) if corrupt else x
    z = autoencoder.encode(seen, train)
    error, parts = per_image(autoencoder.error, autoencoder.decode(z, train), x)
    if not train:
      return error, parts
    autoencoder.follow(z)
    paid = [penalty(autoencoder, key, seen, z) for penalty, key in zip(penalties, penalty_keys)]
    return error + sum(paid), {**parts, **({"penalty": sum(paid)} if paid else {})}

  return objective


def per_image(error: Error, outputs, x):
  """The error of each image, [B], and what it is worth as a ratio of signal to noise."""
  mean_square = jnp.square(jnp.clip(error.mean(outputs), 0, 1) - x).mean((1, 2, 3))
  psnr = -10 * jnp.log10(jnp.maximum(mean_square, 1e-10))  # dB, at most 100
  return error.score(outputs, x).mean((1, 2, 3)), {"psnr": psnr}


def sample(autoencoder: Autoencoder, key, num: int, condition=None):
  """Codes from the Gaussian where codes lie, decoded."""
  del condition
  z = codes.draw(key, autoencoder.moments.value, num)
  return images.from_unit(autoencoder.error.mean(autoencoder.decode(z, train=False)))


def autoencoder(
  module: Autoencoder,
  optimizer: optax.GradientTransformation,
  *,
  corrupt: Callable | None = None,
  penalties: Sequence[Callable] = (),
  decay: float = 0.999,
) -> GenerativeModel:
  """An autoencoder as a generative model; evaluate returns `reconstruction`, the error per dimension, and `psnr` in dB.

  Args:
    module: networks, error, number of codes.
    optimizer: one, for encoder and decoder together.
    corrupt: what befalls the input, in evaluation too (corruptions.py); None: nothing.
    penalties: on the code (penalties.py).
    decay: of the average of the parameters.
  """
  return from_objective(module, reconstruction(corrupt, penalties), sample, optimizer, reports="reconstruction", decay=decay)


# What a trained autoencoder can do.


def encode(module: Autoencoder, state, pixels):
  """The codes of images [B, H, W, C], [B, num_codes]."""
  return module.apply(state.average.variables, images.to_unit(pixels), False, method="encode")


def decode(module: Autoencoder, state, z):
  """The images of codes [B, num_codes], [B, H, W, C]."""
  return images.from_unit(module.error.mean(module.apply(state.average.variables, z, False, method="decode")))


def reconstruct(module: Autoencoder, state, pixels):
  """Images [B, H, W, C] through the code and back; for a denoising autoencoder, cleaned."""
  return decode(module, state, encode(module, state, pixels))
