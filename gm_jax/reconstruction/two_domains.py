"""One encoder and a decoder for each kind of image: what is read from a face of one kind is written as one of the other.

The encoder serves both kinds, so a code says what they have in common (where the strokes are, which way a face looks), and each
decoder knows how its own kind looks.  To swap, encode and decode by the other decoder: so faces are exchanged in films.

Nothing yet keeps the encoder from giving each kind codes of its own, which the other decoder has never seen.  So it is shown
disguised images: changed at random in the ways in which the kinds differ, until it cannot tell one kind from the other.  Each
decoder still has to give the image as it was.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.reconstruction import codes
from gm_jax.reconstruction.autoencoder import Error, per_image, squared_error


class TwoDomains(nn.Module):
  """encode: x [B, H, W, C] in [0, 1] -> z [B, num_codes];  decode: z, label int32 [B] -> outputs [B, H, W, C]."""

  encoder: nn.Module
  decoders: Sequence[nn.Module]
  num_codes: int
  error: Error = squared_error()

  def setup(self):
    self.code = nn.Dense(self.num_codes)
    self.moments = self.variable("codes", "moments", codes.nothing, self.num_codes)

  def encode(self, x, train: bool):
    return self.code(self.encoder(x, train))

  def decode(self, z, label, train: bool):
    """Each code by the decoder of its label."""
    every = jnp.stack([decoder(z, train) for decoder in self.decoders], 1)  # [B, domains, H, W, C]
    return jnp.take_along_axis(every, label[:, None, None, None, None], axis=1)[:, 0]


def two_domains(
  module: TwoDomains, optimizer: optax.GradientTransformation, *, disguise: Callable | None = None, decay: float = 0.999
) -> GenerativeModel:
  """An autoencoder of images with labels, 0 to the number of decoders less one, that say of which kind each is.

  evaluate is that of `autoencoder`; samples are of the kind that the condition names, or of any.

  Args:
    module: encoder and decoders.
    optimizer: any optax transformation.
    disguise: `(key, x [B, H, W, C] in [0, 1]) -> x`, which the encoder sees in training instead (corruptions.py).
    decay: of the average of the parameters.
  """

  def objective(module, key, batch, train):
    x = images.to_unit(batch["image"])
    z = module.encode(disguise(key, x) if train and disguise else x, train)
    if train and not module.is_initializing():
      module.moments.value = codes.follow(module.moments.value, z)
    return per_image(module.error, module.decode(z, batch["label"], train), x)

  def sample(module, key, num, condition):
    code_key, label_key = jax.random.split(key)
    some = random.randint(label_key, num, (), 0, len(module.decoders))
    label = some if condition is None else jnp.asarray(condition)
    z = codes.draw(code_key, module.moments.value, num)
    return images.from_unit(module.error.mean(module.decode(z, label, train=False)))

  return from_objective(module, objective, sample, optimizer, reports="reconstruction", decay=decay)


def swap(module: TwoDomains, state, pixels, label):
  """Images [B, H, W, C] of any kind as images of the kind `label` int32 [B]."""

  def through(module):
    return module.error.mean(module.decode(module.encode(images.to_unit(pixels), False), label, False))

  return images.from_unit(nn.apply(through, module)(state.average.variables))
