"""PixelRNN on statically binarised MNIST: LSTM layers that run over an image by rows or by diagonals.

Family: tractable
Command: gm-jax train pixelrnn_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 11
Expected: nll 88.48 +- 0.21 nats on the 10,000 test images, exact, seed 0

With --layer diagonal a layer sees every pixel before and costs nearly three times as much as with --layer row.
"""

import dataclasses
from typing import Literal

import optax

from experiments import shown
from experiments.base import Run, binarized_mnist
from gm_jax.core import GenerativeModel
from gm_jax.networks import image_lstm, pixelrnn
from gm_jax.tractable import autoregressive, sequential

LAYERS = {"row": image_lstm.RowLSTM, "diagonal": image_lstm.DiagonalBiLSTM}


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 2500  # 1.6 epochs
  batch_size: int = 32
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  layer: Literal["row", "diagonal"] = "row"
  features: int = 32
  layers: int = 4
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 500
  sample_every: int = 500

  LEAST = Run.LEAST | {"features": 2}


def network(config: Config) -> pixelrnn.PixelRNN:
  sizes = dict(features=config.features, layers=config.layers, first_reach=7)
  return pixelrnn.PixelRNN(outputs=1, layer=LAYERS[config.layer], **sizes)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  return autoregressive.autoregressive(
    network(config), autoregressive.bernoulli(), optimizer, (28, 28, 1), scan=pixelrnn.cached(), decay=config.decay
  )


def conditionals(config: Config) -> sequential.Sequential:
  return sequential.network(network(config), autoregressive.bernoulli(), (28, 28, 1), pixelrnn.cached())


def data(config: Config):
  return binarized_mnist(config)


def pictures(config: Config, state) -> dict:
  return {"completions": shown.half_hidden(conditionals(config), state, data(config)["test"])}
