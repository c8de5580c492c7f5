"""Pictures that several experiments show."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images
from gm_jax.cli import arrays
from gm_jax.tasks import completion


def half_hidden(sequential, state, dataset, num: int = 10, each: int = 4) -> np.ndarray:
  """The first images of a data set, their upper halves, and completions drawn from a model's conditionals: a picture."""
  pictures = arrays.read(arrays.first(dataset, num), seed=0)
  known = completion.region("top", pictures.shape[1:3])
  fill = completion.in_order(sequential)
  return completion.sheet(pictures, known, completion.several(fill, state, 0, pictures, known, each))


def of_classes(model, state, num_classes: int, num_rows: int = 8) -> np.ndarray:
  """A column of samples for each class: a picture."""
  labels = jnp.tile(jnp.arange(num_classes), num_rows)
  drawn = jax.jit(model.sample, static_argnums=2)(jax.random.key(0), state, len(labels), labels)
  return images.grid(drawn, columns=num_classes)
