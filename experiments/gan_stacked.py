"""A thousand modes: three digits of MNIST as the channels of an image, and how many of their thousand kinds a GAN makes.

Metz et al. 2017 after Srivastava et al. 2017, counted as in PacGAN (Lin et al. 2018): the classifier of judge.py (trained first
if runs/judge is not there) calls each channel of 26,000 samples a digit.  `gm-jax evaluate` reports "modes", those of the
thousand with a sample, and "reverse_kl" of their shares from uniform ones, in nats; stacks of the test split have all 1,000,
and 0.023 nats.

Family: implicit
Command: gm-jax train gan_stacked --data-dir DIR
Hardware: 2 CPU cores
Minutes: not measured yet
Expected: not measured yet
"""

import dataclasses
import pathlib

import numpy as np
import optax

from experiments import judge
from experiments.base import Run, mnist
from gm_jax import data as datasets
from gm_jax import sampling
from gm_jax.core import GenerativeModel
from gm_jax.implicit import gan, remedies
from gm_jax.metrics import classifier, modes
from gm_jax.networks import dcgan

SHAPE, CLASSES = (28, 28, 3), 10


@dataclasses.dataclass(frozen=True)
class Config(Run):
  packing: int = 2  # images that the critic judges together
  steps: int = 6000
  batch_size: int = 64
  num_stacks: int = 128_000  # of the training split; the test split has 26,000
  learning_rate: float = 2e-4  # of both players' Adam
  momentum: float = 0.5  # Adam's b1: half of the usual, as the other player moves the ground
  base: int = 32  # channels at half resolution; twice as many at a quarter
  num_latents: int = 100
  decay: float = 0.999  # of the generator's average
  num_drawn: int = 26_000  # samples whose modes are counted
  judge: str = "runs/judge"  # the run that keeps the classifier
  sample_every: int = 1000
  save_every: int = 1000

  LEAST = Run.LEAST | dict.fromkeys(("packing", "num_stacks", "base", "num_latents", "num_drawn"), 1)


def model(config: Config) -> GenerativeModel:
  optimizer = optax.adam(config.learning_rate, b1=config.momentum)
  return gan.gan(
    dcgan.Generator(SHAPE, config.base),
    dcgan.Discriminator(config.base),
    gan.non_saturating(),
    optimizer,
    optimizer,
    num_latents=config.num_latents,
    decay=config.decay,
    remedies=[remedies.packing(config.packing), remedies.recomputed_statistics()],
  )


def data(config: Config):
  sizes = {"train": config.num_stacks, "test": 26_000}
  return {split: datasets.stacked(dataset, sizes[split]) for split, dataset in mnist(config).items()}


def over_models(config: Config, state, seed: int) -> dict[str, np.ndarray]:
  """Of the one GAN: {"modes", "reverse_kl", "collapsed": [1]}, see `modes.over_runs`."""
  drawn = sampling.draw(model(config), state, seed=seed, num=config.num_drawn, batch_size=1000)
  found = modes.over_runs([counted(config, drawn)])
  del found["high_quality"]  # a classifier has a name for everything
  return found


def counted(config: Config, stacks: np.ndarray) -> modes.Modes:
  """The modes that a classifier of digits sees in stacks, uint8 [N, H, W, C]."""
  network, variables = judge.train_classifier(mnist(config)["train"], run=pathlib.Path(config.judge))
  digits = [classifier.probabilities(network, variables, stacks[..., c : c + 1]).argmax(-1) for c in range(SHAPE[-1])]
  return modes.of_labels(modes.joint_labels(np.stack(digits, -1), CLASSES), CLASSES ** SHAPE[-1])
