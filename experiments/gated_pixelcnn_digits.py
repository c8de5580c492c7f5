"""Gated PixelCNN of grey handwritten digits given the class, 8 x 8, each of the 17 levels with a probability of its own.

Family: tractable
Command: gm-jax train gated_pixelcnn_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 8
Expected: nll 74.48 +- 0.66 nats on the 299 test images, and accuracy 0.990 +- 0.006 by `gm-jax classify`, seed 0

The picture "classes" has a column for each digit.  `gm-jax classify RUN` asks under which label an image is likeliest.
"""

import dataclasses

import optax

from experiments import base, shown
from gm_jax.core import GenerativeModel
from gm_jax.networks import pixelcnn
from gm_jax.tractable import autoregressive

LEVELS = 17


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2000
  batch_size: int = 64
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  features: int = 32
  blocks: int = 3
  dropout: float = 0.3
  decay: float = 0.99  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 1000

  LEAST = base.Run.LEAST | {"features": 1}


def model(config: Config) -> GenerativeModel:
  output = autoregressive.categorical(LEVELS)
  network = pixelcnn.GatedPixelCNN(
    output.width(1), features=config.features, blocks=config.blocks, num_classes=10, rate=config.dropout
  )
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  scan, shape = pixelcnn.gated_cached(), (8, 8, 1)
  return autoregressive.autoregressive(network, output, optimizer, shape, scan=scan, num_classes=10, decay=config.decay)


def data(config: Config):
  del config
  return base.digits()


def pictures(config: Config, state) -> dict:
  return {"classes": shown.of_classes(model(config), state, 10).repeat(3, 0).repeat(3, 1)}
