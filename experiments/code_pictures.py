"""Pictures of VQ-VAEs."""

import jax
import numpy as np

from gm_jax import images
from gm_jax.approximate import vqvae
from gm_jax.cli import arrays


def reconstructed(module: vqvae.VQVAE | vqvae.VQVAE2, state, dataset, num: int = 40, columns: int = 10) -> np.ndarray:
  """The first images of a data set, a line of them above a line of what their codes alone make of them: a picture."""
  pictures = np.asarray(arrays.read(arrays.first(dataset, num), seed=0))
  through = lambda state, pixels: vqvae.decode(module, state, vqvae.encode(module, jax.random.key(0), state, pixels))
  back = np.asarray(jax.jit(through)(state, pictures))
  starts = range(0, len(pictures), columns)
  lines = [line for start in starts for line in (pictures[start : start + columns], back[start : start + columns])]
  return images.grid(np.concatenate(lines), columns)
