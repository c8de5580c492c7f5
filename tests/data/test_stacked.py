"""Grey images as the channels of one."""

import numpy as np
import pytest

from gm_jax import data
from gm_jax.errors import UserError
from gm_jax.metrics import modes


def test_every_channel_is_an_image_of_the_data_and_the_label_names_them_all():
  plain = data.digits("test")
  made = data.stacked(plain, 50)
  assert made.arrays["image"].shape == (50, 8, 8, 3)
  for image, label in zip(made.arrays["image"], made.arrays["label"]):
    found = [np.flatnonzero((plain.arrays["image"][..., 0] == channel).all((1, 2))) for channel in np.moveaxis(image, -1, 0)]
    digits = [plain.arrays["label"][places[0]] for places in found]
    assert label == modes.joint_labels(np.array([digits]), 10)[0] == int("".join(map(str, digits)))


def test_kinds_are_as_many_and_as_frequent_as_independent_draws_make_them():
  plain = data.digits("train")
  made = data.stacked(plain, 50_000)
  shares = np.bincount(plain.arrays["label"]) / len(plain)
  expected = 50_000 * np.einsum("i,j,k->ijk", shares, shares, shares).ravel()
  counts = np.bincount(made.arrays["label"], minlength=1000)
  statistic = (np.square(counts - expected) / expected).sum()
  assert abs(statistic - 999) < 4 * np.sqrt(2 * 999)  # chi-square with 999 degrees of freedom


def test_image_i_is_the_same_in_a_larger_set_and_another_under_another_seed_or_split():
  plain = data.digits("train")
  few, many = (data.stacked(plain, num).arrays["image"] for num in (10, 100))
  np.testing.assert_array_equal(few, many[:10])
  assert (data.stacked(plain, 10, seed=1).arrays["image"] != few).any((1, 2, 3)).all()
  renamed = data.from_arrays(plain.arrays["image"], plain.arrays["label"], split="other")
  assert (data.stacked(renamed, 10).arrays["image"] != few).any((1, 2, 3)).all()


def test_the_protocol_says_what_was_stacked():
  plain = data.digits("test")
  expected = {**plain.protocol, "stacked": 2, "stack_seed": 3, "take": 5}
  assert data.stacked(plain, 5, channels=2, seed=3).protocol == expected


def test_what_cannot_be_stacked_is_said():
  plain = data.digits("test")
  with pytest.raises(UserError, match="labels"):
    data.stacked(data.from_arrays(plain.arrays["image"]), 5)
  with pytest.raises(UserError, match="grey"):
    data.stacked(data.stacked(plain, 5), 5)
  with pytest.raises(UserError, match="transformed"):
    data.stacked(data.padded(plain, 16), 5)
  with pytest.raises(UserError, match="at least one"):
    data.stacked(plain, 0)
