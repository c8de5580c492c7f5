"""Images between data sets, files and commands."""

import dataclasses
import io
import pathlib

from gm_jax import runs
from gm_jax.cli import opened
from gm_jax.cli.options import alternatives
from gm_jax.errors import UserError


def images_of(run: opened.Run, options):
  """A data set of images of the size that a run models: from `--images F.npy`, or a `--split` of the run's own data."""
  import numpy as np

  dataset = _array(options.images) if options.images else _split(run, options)
  shape, wanted = dataset.gather(np.arange(1))["image"].shape[1:], tuple(opened.batch_like(run)["image"].shape[1:])
  if shape != wanted:
    raise UserError(f"{run.path} models images {wanted}, not {shape}")
  return dataset


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


def place(options, default: pathlib.Path) -> pathlib.Path:
  """Where the result goes, `--out` or else the default; UserError unless it is a file that `keep` and `write` can make."""
  if not options.out:
    return default
  check_picture(options.out)
  check_place(options.out)
  return options.out


def keep(out: pathlib.Path, array, picture) -> None:
  """The result itself in a .npy file, else one picture of it, uint8 [H, W, C]."""
  if out.suffix == ".npy":
    write(out, array)
  else:
    write_picture(out, picture)


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


def write_picture(out: pathlib.Path, picture) -> None:
  """One picture, uint8 [H, W, C]."""
  from gm_jax import hooks

  runs.write_atomically(out, hooks.encode(picture))


def load(path: pathlib.Path, option: str):
  """The array in a .npy file, by the name of the option that asks for it."""
  import numpy as np

  try:
    array = np.load(path, allow_pickle=False)
  except OSError as error:
    raise UserError(f"{option} {str(path)!r} cannot be read: {error.strerror or error}") from error
  except (ValueError, EOFError) as error:
    raise UserError(f"{option} {str(path)!r} is not an array: {str(error).splitlines()[0]}") from error
  if not isinstance(array, np.ndarray):
    raise UserError(f"{option} {str(path)!r} holds several arrays; take one of .npy")
  return array


def _split(run: opened.Run, options):
  """The split of the run's data."""
  config = dataclasses.replace(run.config, data_dir=options.data_dir) if options.data_dir else run.config
  splits = run.module.data(config)
  if options.split not in splits:
    raise UserError(f"unknown split {options.split!r} of {run.name}; {alternatives(options.split, splits)}")
  return splits[options.split]


def _array(path: pathlib.Path):
  """The images in a .npy file as a data set."""
  from gm_jax import data

  images = load(path, "--images")
  if images.dtype != "uint8" or images.ndim != 4 or not images.size:
    raise UserError(f"--images {str(path)!r} holds no array uint8 [N, H, W, C]")
  return data.from_arrays(images, data=path.name)


def _npy(images) -> bytes:
  import numpy as np

  file = io.BytesIO()
  np.save(file, images, allow_pickle=False)
  return file.getvalue()
