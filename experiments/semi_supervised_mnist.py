"""Reading MNIST from few labels: a conditional VAE and a classifier that learn from all images (M2).

Family: approximate
Command: gm-jax train semi_supervised_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 15
Expected: accuracy 0.924 +- 0.003 on the 10,000 test images after 1,000 labels; a bound of 98.5 +- 0.3 nats; seed 0

`gm-jax evaluate RUN` reports the accuracy on test images, and a bound that reads no label.
"""

import dataclasses

import numpy as np
import optax

from experiments import base, latent_pictures
from gm_jax import data as datasets
from gm_jax.approximate import semi_supervised, vae
from gm_jax.core import GenerativeModel
from gm_jax.errors import UserError
from gm_jax.networks.flat import FlatDecoder, FlatEncoder


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 10_000
  batch_size: int = 100
  learning_rate: float = 1e-3  # of Adam
  num_labelled: int = 1000  # images with a label, as many of each class
  share: float = 0.2  # of the batch that has a label
  alpha: float = 20.0  # nats that a nat of a labelled image's cross-entropy counts
  hidden: tuple[int, ...] = (300,)  # units of the hidden layers of each network
  num_latents: int = 30
  decay: float = 0.999  # of the average of the parameters
  save_every: int = 2500
  sample_every: int = 2500

  LEAST = base.Run.LEAST | {"num_labelled": 10, "num_latents": 1}

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.share < 1:
      raise UserError(f"--share is {self.share}; take a number between 0 and 1")


def module(config: Config) -> semi_supervised.SemiSupervisedVAE:
  networks = FlatEncoder(config.hidden), FlatDecoder(config.hidden, (28, 28, 1)), vae.bernoulli()
  sizes = dict(num_latents=config.num_latents, num_classes=10)
  return semi_supervised.SemiSupervisedVAE(*networks, **sizes, classifier=FlatEncoder(config.hidden))


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate)
  return semi_supervised.semi_supervised(module(config), optimizer, alpha=config.alpha, decay=config.decay)


def data(config: Config):
  splits = base.mnist(config)
  splits["train"] = few_labels(splits["train"], config.num_labelled, config.share)
  return {split: datasets.binarized(dataset, "dynamic") for split, dataset in splits.items()}


def few_labels(train: datasets.Dataset, num_labelled: int, share: float) -> datasets.Dataset:
  """All images without labels, and the first `num_labelled` with theirs, repeated until they are `share` of the rows."""
  image, label = train.arrays["image"], train.arrays["label"]
  each = [np.flatnonzero(label == digit)[: num_labelled // 10] for digit in range(10)]
  labelled = np.sort(np.concatenate(each))
  times = max(1, round(share / (1 - share) * len(label) / len(labelled)))
  rows = np.concatenate([np.arange(len(label)), np.tile(labelled, times)])
  shown = np.concatenate([np.full(len(label), -1, np.int32), np.tile(label[labelled], times)])
  return datasets.from_arrays(image[rows], shown, data="mnist", split="train", labelled=len(labelled))


def pictures(config: Config, state) -> dict:
  return {"styles": latent_pictures.styles(module(config), state, 10)}
