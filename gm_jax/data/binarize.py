"""Black-and-white images from grey ones: a choice that moves a likelihood by several nats, so it is explicit and recorded.

  static    every pixel is drawn once, black or white with its grey level as probability, and never again; data that are
            already black and white stay as they are (Larochelle & Murray 2011 published such a draw of MNIST)
  dynamic   the same draw anew at every step (Burda et al. 2016); in evaluation, one draw per (seed, example)
  none      grey levels as they are

Binary images are uint8, 0 or 255.  Numbers under static and dynamic binarisation are not comparable with each other.
"""

import dataclasses
import zlib

import numpy as np

from gm_jax.data import noise
from gm_jax.data.dataset import Dataset
from gm_jax.errors import UserError

STATIC_SEED = 0  # of the frozen draw, for every data set


def static_binarization(dataset):
  """One frozen draw of the split (or the data themselves, if every pixel is 0 or 255 already)."""
  if not isinstance(dataset, Dataset):
    raise UserError(f"{dataset.protocol['data']} is not in memory, which a static binarisation needs; take dynamic or none")
  grey = _grey(dataset)
  protocol = {**dataset.protocol, "binarization": "static", "binarization_seed": STATIC_SEED}
  if ((grey == 0) | (grey == 255)).all():
    return dataclasses.replace(dataset, protocol={**dataset.protocol, "binarization": "static"})
  split = zlib.crc32(dataset.protocol["split"].encode())
  drawn = np.empty_like(grey)
  for first in range(0, len(grey), 4096):  # in pieces, since the noise is twice as large as the images
    piece = grey[first : first + 4096]
    draw = noise.uniform16(STATIC_SEED, noise.FREEZE, split, first, len(piece), piece.shape[1:])
    drawn[first : first + 4096] = bernoulli(draw, piece)
  return dataclasses.replace(dataset, arrays={**dataset.arrays, "image": drawn}, protocol=protocol)


def dynamic_binarization(dataset):
  """A new draw whenever an example is read."""
  if isinstance(dataset, Dataset):
    _grey(dataset)
  before = dataset.transform

  def redraw(batch, draw):
    batch = before(batch, draw)
    return {**batch, "image": bernoulli(draw(batch["image"].shape[1:]), batch["image"])}

  return dataclasses.replace(dataset, transform=redraw, protocol={**dataset.protocol, "binarization": "dynamic"})


def no_binarization(dataset):
  """Grey levels as they are."""
  return dataset


BINARIZATIONS = {"static": static_binarization, "dynamic": dynamic_binarization, "none": no_binarization}


def binarized(dataset, mode: str):
  """The data set under the binarisation that a command line names: "static", "dynamic" or "none"."""
  if mode not in BINARIZATIONS:
    raise UserError(f"binarization {mode!r}; there are {', '.join(BINARIZATIONS)}")
  return BINARIZATIONS[mode](dataset)


def bernoulli(draw: np.ndarray, images: np.ndarray) -> np.ndarray:
  """255 with probability images / 255, else 0: uint16 draws and uint8 images of one shape -> uint8."""
  return (draw < images * np.float32(65536 / 255)) * np.uint8(255)


def _grey(dataset) -> np.ndarray:
  image = dataset.arrays["image"]
  if image.dtype != np.uint8:
    raise UserError(f"{dataset.protocol['data']} holds {image.dtype} points; only uint8 images can be binarised")
  return image
