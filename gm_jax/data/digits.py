"""Real handwritten digits that need no download: 1,797 images of 8 x 8, in the package.

Source: Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, 1998), UCI Machine Learning Repository,
https://archive.ics.uci.edu/dataset/80, licence CC BY 4.0; its test half, as scikit-learn distributes it (`load_digits`).
A pixel counts the ink in a 4 x 4 block of a 32 x 32 scan, 0 to 16.

`digits.npz` holds those numbers untouched: `np.savez_compressed("digits.npz", image=images.astype(np.uint8),
label=target.astype(np.uint8))`.  Here 0..16 becomes 0..255, so there are 17 grey levels.
"""

import functools
import importlib.resources

import numpy as np

from gm_jax.data.dataset import Dataset, from_arrays
from gm_jax.errors import UserError


def digits(split: str) -> Dataset:
  """The handwritten digits, uint8 [N, 8, 8, 1] with labels.

  Every sixth example (index 5, 11, ...) is "test", 299 in all; the other 1,498 are "train".  Both hold all of the 13 writers.
  """
  image, label = _load()
  is_test = np.arange(len(image)) % 6 == 5
  masks = {"train": ~is_test, "test": is_test}
  if split not in masks:
    raise UserError(f"digits has no split {split!r}; there are {', '.join(masks)}")
  return from_arrays(image[masks[split]], label[masks[split]], data="digits", split=split)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
  with importlib.resources.files(__package__).joinpath("digits.npz").open("rb") as file:
    stored = np.load(file, allow_pickle=False)
    image, label = stored["image"], stored["label"].astype(np.int32)
  return (image.astype(np.uint16) * 255 // 16).astype(np.uint8), label
