"""Stacked images: grey ones as the channels of one, so that ten kinds make a thousand (Metz et al. 2017)."""

import zlib

import numpy as np

from gm_jax.data import noise
from gm_jax.data.dataset import Dataset, as_stored, from_arrays
from gm_jax.errors import UserError


def stacked(dataset: Dataset, num: int, *, channels: int = 3, seed: int = 0) -> Dataset:
  """`num` images whose channels are grey images of a data set with labels, drawn independently and uniformly.

  The label is that of all channels, the first one's digit first: classes 1, 2, 3 of ten are 123 (`metrics.modes.joint_labels`).
  The channels of image i depend on seed, split and i alone.

  Args:
    dataset: uint8 [N, H, W, 1] with labels; a transformation of whatever is read would be lost, and is refused.
    num: images, at least 1.
    channels: of each image, at least 1.

  Raises:
    UserError: images that are not grey, that have no labels, or that are transformed when they are read.
  """
  image, label = dataset.arrays["image"], dataset.arrays.get("label")
  if image.dtype != np.uint8 or image.shape[-1] != 1 or label is None:
    raise UserError(f"{image.dtype} {list(image.shape[1:])} cannot be stacked; take grey images, uint8 [H, W, 1], with labels")
  if dataset.transform is not as_stored:
    raise UserError("images that are transformed when they are read cannot be stacked; stack them first")
  if num < 1 or channels < 1:
    raise UserError(f"{num} images of {channels} channels; take at least one of each")
  words = noise.bits(seed, noise.STACK, zlib.crc32(dataset.protocol["split"].encode())).random_raw(num * channels)
  chosen = (words % len(image)).astype(np.int64).reshape(num, channels)
  joint = np.ravel_multi_index(label[chosen].T, (int(label.max()) + 1,) * channels)
  protocol = {**dataset.protocol, "stacked": channels, "stack_seed": seed, "take": num}
  return from_arrays(np.moveaxis(image[chosen, ..., 0], 1, -1), joint, **protocol)
