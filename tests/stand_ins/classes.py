"""A Gaussian with independent pixels for each digit: a conditional model with a likelihood.

Family: tractable
"""

from dataclasses import dataclass

from experiments import base
from gm_jax import data as data_sets
from gm_jax import images
from gm_jax.tasks import classification
from gm_jax.tractable import mixture


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 640
  num_samples: int = 4
  size: float = 0.1  # of the made-up share
  broken: bool = False  # a data set without labels in its test split


def data(config):
  splits = base.digits()
  image = splits["test"].arrays["image"]
  test = data_sets.from_arrays(image, data="digits", split="test") if config.broken else splits["test"]
  return {"train": data_sets.stratified(splits["train"]), "test": test}


def model(config):
  component = mixture.diagonal_gaussian(variance=0.1, pixels=images.DEQUANTIZED)
  return classification.class_conditional(mixture.mixture(component, 1, config.size), 10)
