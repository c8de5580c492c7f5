"""Images between data sets, files and commands."""

import io
import pathlib

from gm_jax import runs
from gm_jax.errors import UserError


def first(dataset, num: int):
  """The first `num` examples of a data set, in memory, to be transformed when they are read."""
  import numpy as np

  from gm_jax import data

  arrays = dataset.gather(np.arange(min(num, len(dataset))))
  return data.Dataset(arrays, dataset.protocol, dataset.transform)


def read(dataset, seed: int):
  """The images as a model sees them, uint8 [N, H, W, C]."""
  from gm_jax import data

  batch, _ = next(data.epoch(dataset, len(dataset), seed))
  return batch["image"]


def check_picture(out: pathlib.Path) -> None:
  """UserError unless `write` takes this name."""
  if out.suffix not in (".png", ".npy"):
    raise UserError(f"--out {str(out)!r}: take a name that ends in .png, a picture, or .npy, an array [N, H, W, C]")


def check_place(out: pathlib.Path) -> None:
  """UserError unless a file may be written here."""
  if not out.parent.is_dir():
    raise UserError(f"--out {str(out)!r}: there is no directory {str(out.parent)!r}")
  if out.is_dir():
    raise UserError(f"--out {str(out)!r} is a directory; name a file")


def write(out: pathlib.Path, images) -> None:
  """Images [N, H, W, C] as a picture of all of them or as an array, by the name's ending."""
  from gm_jax import hooks

  runs.write_atomically(out, _npy(images) if out.suffix == ".npy" else hooks.png(images))


def _npy(images) -> bytes:
  import numpy as np

  file = io.BytesIO()
  np.save(file, images, allow_pickle=False)
  return file.getvalue()
