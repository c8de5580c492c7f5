"""A style-based GAN on MNIST at 32 x 32: latents enter as styles of every convolution, and chance as noise at every pixel.

Family: implicit
Command: gm-jax train style_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with three other trainings
Minutes: 45
Expected: Frechet distance 38 of 1,000 samples from as many test images in a classifier's features (of training images: 7.7)

Besides samples there are two pictures.  In "truncation" each row is one w, drawn away from the mean image on the left.  In
"mixing" each image has the coarse styles of the first of its row, and the fine ones of the first of its column.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import base
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.implicit import games, gan, style
from gm_jax.networks.style import Discriminator, Generator


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 4000
  batch_size: int = 32
  channels: tuple[int, ...] = (64, 64, 32, 16)  # at 4 x 4, 8 x 8, 16 x 16 and 32 x 32
  width: int = 64  # of z, of the mapping network and of w
  mapping: int = 2  # layers of the mapping network
  mixing: float = 0.9  # share of images made from two latents in training
  learning_rate: float = 2e-3  # of both players' Adam
  gamma: float = 1.0  # weight of R1
  r1_every: int = 16  # the critic pays for its slope at each so-many-th step, and then for all of them
  path_weight: float = 2.0  # of what the generator pays for uneven paths
  path_every: int = 8
  decay: float = 0.998  # of the generator's average
  sample_every: int = 1000
  save_every: int = 1000

  LEAST = base.Run.LEAST | {"width": 1, "r1_every": 1, "path_every": 1}


def generator(config: Config) -> Generator:
  return Generator((base.FRAMED, base.FRAMED, 1), config.channels, config.width, config.mapping, config.mixing, output=jnp.tanh)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate, b1=0.0, b2=0.99)
  game = games.r1(games.non_saturating(), config.gamma, config.r1_every)
  options = dict(num_latents=config.width, decay=config.decay)
  options["remedies"] = (style.path_length(config.path_weight, config.path_every),)
  return gan.gan(generator(config), Discriminator(config.channels), game, optimizer, optimizer, **options)


def data(config: Config):
  return base.framed_mnist(config)


def pictures(config: Config, state) -> dict:
  draw = jax.jit(nn.apply(lambda generator: (truncated(generator), *mixtures(generator)), generator(config)))
  rows, *table = (np.asarray(images.from_symmetric(drawn)) for drawn in draw(state.average.variables))
  return {"truncation": images.grid(rows, columns=len(PSI)), "mixing": _with_sources(*table)}


# What is shown.

PSI = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
ROWS, COLUMNS = 8, 10
FIRST_FINE = 3  # of the styles: those of 4 x 4 and 8 x 8 are coarse
MILD = 0.7  # psi of what is mixed


def truncated(generator: Generator):
  """ROWS latents at each psi."""
  w = jnp.repeat(_latents(generator, 0, ROWS), len(PSI), 0)
  return _synthesized(generator, generator.truncate(w, jnp.tile(jnp.array(PSI), ROWS)[:, None]))


def mixtures(generator: Generator):
  """ROWS images, COLUMNS images, and those with the coarse styles of a row and the fine ones of a column."""
  rows, columns = (generator.truncate(_latents(generator, *pair), MILD) for pair in ((1, ROWS), (2, COLUMNS)))
  mixed = _synthesized(generator, jnp.repeat(rows, COLUMNS, 0), jnp.tile(columns, (ROWS, 1)))
  return _synthesized(generator, rows), _synthesized(generator, columns), mixed


def _latents(generator: Generator, seed: int, num: int):
  """w [num, width]."""
  return generator.map(jax.random.normal(jax.random.key(seed), (num, generator.width)), False)


def _synthesized(generator: Generator, coarse, fine=None):
  """Images [B, H, W, C] of w [B, width], or of two."""
  styles = generator.mix(coarse, coarse if fine is None else fine, FIRST_FINE)
  return generator.synthesize(styles, jax.random.key(3))


def _with_sources(rows, columns, mixed) -> np.ndarray:
  """The table of mixtures, with what they are made from on the left and above: a picture."""
  shape = mixed.shape[1:]
  below = np.concatenate([rows[:, None], mixed.reshape(ROWS, COLUMNS, *shape)], 1).reshape(-1, *shape)
  return images.grid(np.concatenate([np.zeros_like(rows[:1]), columns, below]), columns=COLUMNS + 1)
