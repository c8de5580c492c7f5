"""How far a model's samples are from data while it trains: a Frechet distance in the features of the judge (judge.py).

It is named after that classifier, and is no FID: compare it with distances in the same features alone, and at as many samples.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments import judge
from gm_jax import data, hooks, sampling
from gm_jax.metrics import frechet


class Judge(NamedTuple):
  """What distances are measured with.

  Attributes:
    features: uint8 [N, H, W, C] -> float32 [N, D].
    reference: moments of the features of real images.
  """

  features: Callable
  reference: frechet.Moments

  def distance(self, pictures: np.ndarray) -> float:
    """Of uint8 images [N, H, W, C], N at least 2, from the real ones."""
    return frechet.distance(frechet.moments(self.features(pictures)), self.reference)


@functools.cache
def judge_of_mnist(data_dir: str | None, run: str) -> Judge:
  """The classifier of MNIST that `run` keeps (trained now if there is none), and the whole test split as reference."""
  from gm_jax.metrics import classifier

  train, test = (data.tfds_images("mnist", split, data_dir) for split in ("train", "test"))
  features = functools.partial(classifier.features, *judge.train_classifier(train, run=pathlib.Path(run)))
  return Judge(features, frechet.moments(features(test.arrays["image"])))


class FrechetDistance(hooks.Hook):
  """Logs {"frechet": distance} of the same `num` seeds each time; images are uint8 before anything is read off them."""

  def __init__(self, every: int, model, judge: Judge, *, seed: int = 0, num: int = 5000, batch_size: int = 1000):
    self.every, self.judge = every, judge
    self.draw = lambda state: sampling.draw(model, state, seed=seed, num=num, batch_size=batch_size)

  def __call__(self, step, state, metrics):
    return {"frechet": self.judge.distance(self.draw(state))}


def history(records: list[dict]) -> list[tuple[int, float]]:
  """(step, distance) of the lines of metrics.jsonl that have one."""
  return [(record["step"], record["frechet"]) for record in records if "frechet" in record]


class Course(NamedTuple):
  """What a run's distances came to."""

  best: float
  best_step: int
  last: float
  last_step: int


def course(measured: list[tuple[int, float]]) -> Course:
  """Of (step, distance), at least one, in any order; the first of equal ones is the best."""
  best_step, best = min(measured, key=lambda entry: (entry[1], entry[0]))
  last_step, last = max(measured)
  return Course(best, best_step, last, last_step)
