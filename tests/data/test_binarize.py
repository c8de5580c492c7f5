"""Static and dynamic binarisation: exact probabilities, and the scores they give to a model that a formula can score."""

import numpy as np
import pytest

from gm_jax import data
from gm_jax.data.binarize import bernoulli
from gm_jax.errors import UserError


def draws(dataset, steps=20):
  fetch = data.batches(data.dynamic_binarization(dataset), len(dataset), seed=1)
  return [fetch(step) for step in range(steps)]


def test_probability_of_white_is_the_grey_level():
  """All 65,536 numbers that can be drawn, for all 256 levels: the share of white is level / 255 to the last bit."""
  everything = np.arange(65536, dtype=np.uint16)
  for level in range(256):
    white = (bernoulli(everything, np.full(65536, level, np.uint8)) == 255).mean()
    assert abs(white - level / 255) < 1 / 65536
    assert level not in (0, 255) or white == level / 255


def test_dynamic_draws_score_a_factorised_model_at_its_cross_entropy():
  """Mean negative log-likelihood over draws = - sum over pixels of p log q + (1 - p) log(1 - q)."""
  train, test = data.digits("train"), data.digits("test")
  q = (train.arrays["image"].mean(0) / 255 * 0.98 + 0.01).astype(np.float64)
  p = test.arrays["image"] / 255
  formula = -(p * np.log(q) + (1 - p) * np.log1p(-q)).sum((1, 2, 3)).mean()
  means = []
  for batch in draws(test):
    x = batch["image"] / 255
    means.append(-(x * np.log(q) + (1 - x) * np.log1p(-q)).sum((1, 2, 3)).mean())
  logit = np.log(q) - np.log1p(-q)
  spread = np.sqrt((p * (1 - p) * logit**2).sum((1, 2, 3)).mean() / (len(test) * len(means)))
  assert abs(np.mean(means) - formula) < 4 * spread
  # 4 standard errors are small beside what another reading of the data would cost
  cut = (p >= 0.5).astype(float)
  assert abs(formula + (cut * np.log(q) + (1 - cut) * np.log1p(-q)).sum((1, 2, 3)).mean()) > 20 * spread


def test_every_pixel_of_every_step_is_drawn_anew():
  """Draws of one pixel over steps, of neighbours, and of two rows are uncorrelated."""
  grey = data.from_arrays(np.full((256, 6, 6, 1), 128, np.uint8), np.arange(256))
  steps = np.stack([batch["image"].reshape(256, 36)[np.argsort(batch["label"])] == 255 for batch in draws(grey)]).astype(float)
  centred = steps - steps.mean()
  for shifted in (np.roll(centred, 1, 0), np.roll(centred, 1, 1), np.roll(centred, 1, 2), np.roll(centred, 16, 2)):
    assert abs((centred * shifted).mean() / centred.var()) < 4 / np.sqrt(centred.size)


def test_evaluation_draws_are_fixed_by_seed_and_example():
  dataset = data.dynamic_binarization(data.digits("test"))
  first, again, other = ([batch["image"] for batch, _ in data.epoch(dataset, 64, seed)] for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert (np.concatenate(first) != np.concatenate(other)).any()


def test_static_draw_is_frozen():
  digits = data.digits("train")
  frozen = data.static_binarization(digits)
  assert set(np.unique(frozen.arrays["image"])) == {0, 255}
  np.testing.assert_array_equal(data.static_binarization(data.digits("train")).arrays["image"], frozen.arrays["image"])
  np.testing.assert_array_equal(data.static_binarization(frozen).arrays["image"], frozen.arrays["image"])
  np.testing.assert_array_equal(data.static_binarization(digits.take(100)).arrays["image"], frozen.arrays["image"][:100])
  grey = digits.arrays["image"] / 255
  error = (frozen.arrays["image"] / 255 - grey).mean()
  assert abs(error) < 4 * np.sqrt((grey * (1 - grey)).mean() / grey.size)


def test_static_draws_of_two_splits_are_independent():
  """Else the test split would share its noise with the training split, row by row."""
  grey = np.full((500, 8, 8, 1), 128, np.uint8)
  train, test = (data.static_binarization(data.from_arrays(grey, split=s)).arrays["image"] == 255 for s in ("train", "test"))
  assert abs((train == test).mean() - 0.5) < 4 * 0.5 / np.sqrt(grey.size)


@pytest.mark.parametrize("mode", ["static", "dynamic", "none"])
def test_the_protocol_says_which(mode):
  assert data.binarized(data.digits("test"), mode).protocol["binarization"] == mode


def test_what_cannot_be_binarised():
  with pytest.raises(UserError, match="'dynamical'.*static, dynamic, none"):
    data.binarized(data.digits("test"), "dynamical")
  for mode in ("static", "dynamic"):
    with pytest.raises(UserError, match="two_moons"):
      data.binarized(data.toys.two_moons().dataset(10, seed=0), mode)
