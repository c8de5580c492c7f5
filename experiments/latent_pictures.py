"""Pictures of the latent space of a trained VAE, for the experiments to show."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images
from gm_jax.approximate import latents, vae
from gm_jax.cli import arrays
from gm_jax.metrics.latents import spread

STEPS = 10  # images in a row


def of_vae(module: vae.VAE, state, dataset, num: int = 1000) -> dict[str, np.ndarray]:
  """Between images, along single latents, from thin to bold; and all of the space where it is a plane."""
  pixels = arrays.read(arrays.first(dataset, num), seed=0)
  codes, _ = jax.jit(lambda pixels: vae.encode(module, jax.random.key(0), state, pixels))(pixels)
  show = lambda rows: _decoded(module, state, jnp.concatenate(rows), STEPS)
  pictures = {
    "interpolation": show([latents.around(*codes[2 * row : 2 * row + 2], STEPS) for row in range(8)]),
    "walks": show(_walks(codes)),
    "ink": show(_from_thin_to_bold(codes, pixels)),
  }
  if module.num_latents == 2:
    pictures["manifold"] = _decoded(module, state, latents.plane(20), 20)
  return pictures


def styles(module: vae.VAE, state, num_classes: int, num_rows: int = 8) -> np.ndarray:
  """Of a conditional VAE: each row has a z of its own, each column a class."""
  z = jax.random.normal(jax.random.key(0), (num_rows, module.num_latents))
  z = jnp.repeat(z, num_classes, axis=0)
  return _decoded(module, state, z, num_classes, jnp.tile(jnp.arange(num_classes), num_rows))


def _walks(codes, num_rows: int = 8) -> list:
  """The first image with one latent after the other changed, those that vary most over the data first."""
  order = np.argsort(-spread(codes))[:num_rows]
  return [latents.walk(codes[0], int(latent), jnp.linspace(-2.5, 2.5, STEPS)) for latent in order]


def _from_thin_to_bold(codes, pixels, num_rows: int = 8) -> list:
  """Images along the direction from the tenth with the least ink to the tenth with the most."""
  order = np.argsort(pixels.reshape(len(pixels), -1).sum(1, dtype=np.int64))
  tenth = max(1, len(order) // 10)
  direction = latents.attribute(codes[order[-tenth:]], codes[order[:tenth]])
  return [latents.added(z, direction, jnp.linspace(-1.5, 1.5, STEPS)) for z in codes[:num_rows]]


def _decoded(module, state, z, columns: int, label=None) -> np.ndarray:
  drawn = jax.jit(lambda z, label: vae.decode(module, state, z, label))(z, label)
  return images.grid(np.asarray(drawn), columns=columns)
