"""A thousand modes: what the classifier calls the channels is what is counted."""

import itertools

import numpy as np
import pytest

from experiments import gan_stacked
from gm_jax import data, sampling
from gm_jax.metrics import classifier

DIGITS = np.array(list(itertools.product(range(10), repeat=3)), np.uint8)


def stacks_of(digits):
  """Images whose channels are as bright as their digits say."""
  return np.tile(digits[:, None, None], (1, 28, 28, 1))


@pytest.fixture
def reads_brightness(monkeypatch):
  """The judge calls an image by its first pixel."""
  monkeypatch.setattr(gan_stacked, "mnist", lambda config: {"train": None})
  monkeypatch.setattr(gan_stacked.judge, "train_classifier", lambda train, run: (None, None))
  monkeypatch.setattr(classifier, "probabilities", lambda network, variables, x: np.eye(10)[x[:, 0, 0, 0] % 10])


def test_each_channel_has_its_say(reads_brightness):
  every = gan_stacked.counted(gan_stacked.Config(), stacks_of(DIGITS))
  assert every.covered == 1000
  assert every.reverse_kl == pytest.approx(0, abs=1e-12)
  half = gan_stacked.counted(gan_stacked.Config(), stacks_of(DIGITS[DIGITS[:, 1] < 5]))
  assert half.covered == 500
  assert half.counts.reshape(10, 10, 10)[:, :5].all()


def test_what_is_told_is_of_the_samples_of_the_seed(reads_brightness, monkeypatch):
  asked = []

  def draw(model, state, *, seed, num, batch_size):
    asked.append((state, seed, num))
    return stacks_of(DIGITS[:20])

  monkeypatch.setattr(sampling, "draw", draw)
  found = gan_stacked.over_models(gan_stacked.Config(num_drawn=7), "the state", 3)
  assert asked == [("the state", 3, 7)]
  assert {name: values.tolist() for name, values in found.items()} == {
    "modes": [20],
    "reverse_kl": [pytest.approx(np.log(50))],
    "collapsed": [1],
  }


def test_the_data_are_stacks_of_each_split(monkeypatch):
  monkeypatch.setattr(gan_stacked, "mnist", lambda config: {split: data.digits(split) for split in ("train", "test")})
  made = gan_stacked.data(gan_stacked.Config(num_stacks=10))
  assert [(split, len(dataset), dataset.protocol["split"]) for split, dataset in made.items()] == [
    ("train", 10, "train"),
    ("test", 26_000, "test"),
  ]
