"""The embedded digits: what the source says of them, and a file that nothing can be hidden in."""

import importlib.resources
import zipfile

import numpy as np
import pytest

from gm_jax import data
from gm_jax.errors import UserError


def test_they_are_the_1797_digits_of_the_source():
  """Counts per class and levels as published with the test half of the UCI set."""
  train, test = data.digits("train"), data.digits("test")
  images = np.concatenate([train.arrays["image"], test.arrays["image"]])
  labels = np.concatenate([train.arrays["label"], test.arrays["label"]])
  assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
  np.testing.assert_array_equal(np.unique(images), np.arange(17) * 255 // 16)
  assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # so no image of one split is in the other


def test_labels_belong_to_the_images():
  """The nearest training image has the right label nearly always (98.3 % on the usual split)."""
  train, test = data.digits("train").arrays, data.digits("test").arrays
  flat = lambda arrays: arrays["image"].reshape(-1, 64).astype(np.float64)
  distance = ((flat(test)[:, None] - flat(train)[None]) ** 2).sum(-1)
  assert (train["label"][distance.argmin(1)] == test["label"]).mean() > 0.97


def test_the_file_is_small_and_holds_numbers_only():
  file = importlib.resources.files(data).joinpath("digits.npz")
  with file.open("rb") as opened:
    assert len(opened.read()) <= 60 * 1024
  with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
    for name in archive.namelist():
      with archive.open(name) as member:
        np.lib.format.read_magic(member)
        assert np.lib.format.read_array_header_1_0(member)[2] == np.uint8  # an object array would be a pickle


def test_no_such_split():
  with pytest.raises(UserError, match="'validation'.*train, test"):
    data.digits("validation")
