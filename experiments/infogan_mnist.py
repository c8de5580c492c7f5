"""InfoGAN on MNIST: without labels, a category of ten comes to say which digit, and two numbers how it is written.

Family: implicit
Command: gm-jax train infogan_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with two other trainings
Minutes: 23, in two pieces
Expected: purity 0.82, most of each category is a digit of its own; seed 0 (seed 1 after half of the steps: 0.69, seed 0: 0.74)

`python -m experiments.purity RUN --data-dir DIR` says whether each category is one digit.  In the pictures "number_1" and
"number_2" a row has a category, and a column a value of that number from -1 to 1, all else being fixed; in "categories" a
column has a noise of its own.

The critic, and with it the recogniser of codes, sees data and fakes slanted at random.  Without that a category may say which
way a digit leans: two of them shared 4 and 9, two 7 and 8, and purity was 0.79 (seed 1 after a quarter of the steps: 0.33).
"""

import dataclasses

import numpy as np
import optax

from experiments.base import Run, mnist
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.implicit import gan, infogan, latents, remedies
from gm_jax.networks.infogan import Discriminator, Generator
from gm_jax.reconstruction import corruptions

COLUMNS = 10  # of a picture


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 10_000
  batch_size: int = 64
  generator_learning_rate: float = 1e-3  # of Adam
  critic_learning_rate: float = 2e-4  # of Adam; the recogniser's too
  momentum: float = 0.5  # Adam's b1, as in the paper
  base: int = 32  # channels at half resolution, twice as many at a quarter; the dense layers have 16 times as many units
  num_latents: int = 62  # of noise, beside the codes
  num_categories: int = 10
  num_numbers: int = 2
  weight: float = 1.0  # of the information about the category
  numbers_weight: float = 0.1  # of that about the numbers
  slant: float = 0.4  # most that the critic's view of an image is slanted, in pixels for each row above the middle
  decay: float = 0.999  # of the generator's average
  sample_every: int = 1000
  save_every: int = 1000

  LEAST = Run.LEAST | {"num_categories": 2}


def model(config: Config) -> GenerativeModel:
  codes = (config.num_categories,), config.num_numbers
  informative = infogan.informative(*codes, weight=config.weight, numbers_weight=config.numbers_weight)
  optimizers = (optax.adam(rate, b1=config.momentum) for rate in (config.generator_learning_rate, config.critic_learning_rate))
  players = generator(config), Discriminator(config.base), gan.non_saturating(), *optimizers
  chosen = informative, remedies.augmentation(corruptions.slanted(config.slant))
  return gan.gan(*players, num_latents=config.num_latents, decay=config.decay, remedies=chosen)


def generator(config: Config) -> Generator:
  return Generator((28, 28, 1), config.base)


def law(config: Config):
  """Of z: noise, the category as a one-hot vector, numbers."""
  return infogan.coded(latents.normal(config.num_latents), (config.num_categories,), config.num_numbers)


def data(config: Config):
  return mnist(config)


def pictures(config: Config, state) -> dict:
  noise = np.random.default_rng(0).normal(size=(COLUMNS, config.num_latents)).astype(np.float32)
  still = np.zeros((COLUMNS, config.num_numbers), np.float32)
  swept = {f"number_{index + 1}": still + _sweep(config, index) for index in range(config.num_numbers)}
  fixed = np.tile(noise[:1], (COLUMNS, 1))
  return {
    "categories": _by_category(config, state, noise, still),
    **{name: _by_category(config, state, fixed, numbers) for name, numbers in swept.items()},
  }


def _sweep(config: Config, index: int) -> np.ndarray:
  """-1 to 1 in one column of [COLUMNS, numbers], nothing in the others."""
  return np.linspace(-1, 1, COLUMNS, dtype=np.float32)[:, None] * np.eye(config.num_numbers, dtype=np.float32)[[index]]


def _by_category(config: Config, state, noise, numbers) -> np.ndarray:
  """A row for each category, in which noise [COLUMNS, ...] and numbers [COLUMNS, ...] are the same: a picture."""
  labels = np.repeat(np.arange(config.num_categories), COLUMNS)[:, None]
  every = lambda values: np.tile(values, (config.num_categories, 1))
  z = infogan.with_codes(every(noise), labels, every(numbers), (config.num_categories,))
  return images.grid(infogan.drawn(generator(config), state, z), columns=COLUMNS)
