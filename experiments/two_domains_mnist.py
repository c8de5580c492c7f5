"""One encoder for two kinds of MNIST, plain and slanted in negative, and a decoder for each: one is read, the other written.

Family: reconstruction
Command: gm-jax train two_domains_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 2.2
Expected: swapped test images 17.0 and 16.7 dB from their truth (the mean image of the kind: 11.9), seed 0

The picture "swapped" has test digits of the first kind, their truth in the second, and what the second decoder makes of them.
No image is ever seen in both kinds: odd and even training images are of one each.  The encoder sees all of them slanted at
random, half of them in negative, so that it cannot tell the kinds apart.
"""

import dataclasses

import numpy as np
import optax

from experiments import base
from gm_jax import data as datasets
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from gm_jax.reconstruction import corruptions, two_domains


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 6000
  batch_size: int = 128
  learning_rate: float = 1e-3  # of Adam, falling to nothing along a cosine
  num_codes: int = 32
  hidden: tuple[int, ...] = (512, 256)  # units of the encoder's hidden layers
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 2000
  sample_every: int = 2000

  LEAST = base.Run.LEAST | {"num_codes": 1}


def other(pixels: np.ndarray) -> np.ndarray:
  """Slanted by a quarter of a pixel for each row, in negative: uint8 [N, 28, 28, 1]."""
  slanted = [np.roll(pixels[:, row], round((14 - row) / 4), axis=1) for row in range(28)]
  return 255 - np.stack(slanted, 1)


def module(config: Config) -> two_domains.TwoDomains:
  decoders = [FlatDecoder(config.hidden[::-1], (28, 28, 1)) for _ in range(2)]
  return two_domains.TwoDomains(FlatEncoder(config.hidden), decoders, config.num_codes)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  disguise = corruptions.both(corruptions.negative(0.5), corruptions.slanted(0.5))
  return two_domains.two_domains(module(config), optimizer, disguise=disguise, decay=config.decay)


def data(config: Config):
  """The label is the kind: 0 as it is, 1 the other."""
  found = {}
  for split, dataset in base.mnist(config).items():
    pixels = dataset.arrays["image"]
    kind = np.arange(len(pixels)) % 2
    both = np.where(kind[:, None, None, None] == 1, other(pixels), pixels)
    found[split] = datasets.from_arrays(both, kind, **{**dataset.protocol, "kinds": "plain and slanted negative"})
  return found


def pictures(config: Config, state) -> dict:
  plain = base.mnist(config)["test"].arrays["image"][:12]
  swapped = np.asarray(two_domains.swap(module(config), state, plain, np.ones(12, np.int32)))
  return {"swapped": images.grid(np.concatenate([plain, other(plain), swapped]), columns=12)}
