"""Digits classified by Bayes' rule from one Gaussian (or another density) per class; `gm-jax classify` grades it.

Family: tractable
Command: gm-jax train bayes_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 0.3
Expected: accuracy 0.993 +- 0.005 on the 299 test images by `gm-jax classify`

Every `--density`, and two discriminative classifiers, on the test images; `python -m experiments.bayes_table` prints it:

                             accuracy        log-loss  calibration error  -log p(x), nats
  gaussian               0.993 +- 0.005  0.079 +- 0.056              0.007   308.26 +- 0.68
  low_rank               0.993 +- 0.005  0.088 +- 0.068              0.007   314.49 +- 1.33
  mixture                0.987 +- 0.007  0.144 +- 0.079              0.014   311.03 +- 0.57
  convolutional network  0.980 +- 0.008  0.114 +- 0.052              0.022                -
  logistic regression    0.933 +- 0.014  0.197 +- 0.029              0.062                -
  diagonal               0.923 +- 0.015  0.868 +- 0.231              0.070   325.41 +- 0.64
  bernoulli_mixture      0.920 +- 0.016  0.356 +- 0.073              0.056    21.24 +- 0.23 (of black and white)
  bernoulli              0.910 +- 0.017  0.383 +- 0.074              0.050    21.20 +- 0.24 (of black and white)

Independent pixels know as little as it seems, and are sure of it: their log-loss is ten times that of the Gaussian.  `sphere`,
`rank` and `share` are the best of a few for Gaussians by five-fold cross-validation on the training split; Bernoullis take the
same `share`.
"""

import dataclasses
from typing import Literal

from experiments import base
from gm_jax import data as data_sets
from gm_jax import images
from gm_jax.core import GenerativeModel
from gm_jax.tasks import classification
from gm_jax.tractable import gaussian, mixture

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 40  # for EM's sake: what is fitted in closed form is as good after five
  batch_size: int = 1360  # 136 of each class; the rarest has 141
  density: Literal["gaussian", "diagonal", "low_rank", "mixture", "bernoulli", "bernoulli_mixture"] = "gaussian"  # per class
  sphere: float = 0.2  # share of a sphere in the covariance of "gaussian"
  rank: int = 12  # of "low_rank"
  num_components: int = 3  # of the mixtures
  share: float = 0.1  # of the data set, that the components of all others are given in made-up examples
  variance: float = 0.1  # of those examples, grey levels being in (0, 1)
  log_every: int = 1
  save_every: int = 20
  sample_every: int = 20

  LEAST = base.Run.LEAST | {"rank": 1, "num_components": 1, "share": 1e-9}


def running_average(updates):
  """Step sizes 1, 1/2, 1/3, ...: every batch so far has the same weight, as in the closed form."""
  return 1 / (updates + 1.0)


def density(config: Config) -> GenerativeModel:
  """Of one class."""
  made_up = {"variance": config.variance, "pixels": images.DEQUANTIZED}
  one = lambda component: mixture.mixture(component, 1, config.share, running_average)
  several = lambda component: mixture.mixture(component, config.num_components, config.share, mixture.decreasing())
  return {
    "gaussian": lambda: gaussian.gaussian(regularize=gaussian.towards_sphere(config.sphere)),
    "diagonal": lambda: one(mixture.diagonal_gaussian(**made_up)),  # naive Bayes
    "low_rank": lambda: gaussian.low_rank(config.rank, step_size=mixture.decreasing()),
    "mixture": lambda: several(mixture.full_gaussian(**made_up)),
    "bernoulli": lambda: one(mixture.bernoulli()),  # naive Bayes in black and white
    "bernoulli_mixture": lambda: several(mixture.bernoulli()),
  }[config.density]()


def model(config: Config) -> GenerativeModel:
  return classification.class_conditional(density(config), CLASSES)


def data(config: Config):
  del config
  splits = base.digits()
  return {**splits, "train": data_sets.stratified(splits["train"], CLASSES)}


def protocol(config: Config) -> dict:
  cut = {"binarization": "cut at one half"} if config.density.startswith("bernoulli") else {}
  return {"bin_width": 1.0, **cut}  # the nll is a mass: of 256 grey levels, or of black and white
