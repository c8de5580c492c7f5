"""Any image set of TensorFlow Datasets, read by random access and without TensorFlow.

Only *prepared* data are read, in the array_record format, from `data_dir / name / version`; preparing one is done once, by TFDS
itself, and that is the only thing that needs TensorFlow (`prepare_command`).  Names are looked up in the folder alone: a typing
error is answered from the disk, at once, and never by a download.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.data import decoded, pictures
from gm_jax.data.large import BUDGET, check_image_shape, opened
from gm_jax.errors import UserError

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?", re.ASCII)
NEEDED = "tensorflow and importlib_resources"  # by TFDS, which does not install them itself
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)


def tfds_images(name: str, split: str = "train", data_dir=None, *, size=None, channels=None, budget: int = BUDGET):
  """One split of a prepared TFDS image set: uint8 [N, H, W, C], int32 labels [N] where it has them.

  Args:
    name: `mnist`, `name/config`, `name:1.0.0`; the newest prepared version if none is named.
    split: as TFDS calls it: "train", "test", "validation".
    data_dir: TFDS's folder; None is `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    size, channels: as in `picture_folder`, for sets whose pictures differ in size; None keeps them as stored.
    budget: bytes; more than that stays on disk and is decoded batch by batch.
  """
  builder = _builder(name, data_dir)
  if split not in builder.info.splits:
    raise UserError(f"{name} has no split {split!r}; there are {', '.join(sorted(builder.info.splits))}")
  source = _open(builder, name, split, size, channels)
  protocol = {"data": name, "split": split, "binarization": "none", "source": f"tfds {builder.info.full_name}"}
  if size is not None:
    protocol["size"] = size
  if _black_and_white(source):
    source = dataclasses.replace(source, white=1)
    protocol["binarization"] = "static"
  return opened(source, protocol, budget)


def tfds_splits(name: str, data_dir=None) -> list[str]:
  """The names of the splits that a prepared set has."""
  return sorted(_builder(name, data_dir).info.splits)


def prepare_command(name: str, data_dir) -> str:
  """What prepares a TFDS set so that it can be read here; it needs `pip install tensorflow importlib_resources`, once."""
  options = f"data_dir={str(data_dir)!r}, file_format='array_record'"
  return f'python -c "import tensorflow_datasets as t; t.builder({name!r}, {options}).download_and_prepare()"'


@dataclasses.dataclass(frozen=True)
class Records:
  """A `large.Source` over the records of one split."""

  records: Any  # TFDS data source that leaves pictures encoded
  shape: tuple[int, int, int]  # [H, W, C] of what is read
  label: str | None  # the feature that holds it
  size: int | None
  name: str
  folder: Path
  white: int = 255  # the stored level that means white

  @property
  def num(self) -> int:
    return len(self.records)

  @property
  def num_bytes(self) -> int:
    return self.num * int(np.prod(self.shape))

  def read(self, indices):
    indices = [int(index) for index in indices]
    try:
      examples = self.records.__getitems__(indices)  # one call: four times as fast as one by one
    except Exception as error:  # files that are missing, cut or damaged
      reason = " ".join(str(error).split())[:200]
      raise UserError(f"records of {self.name} in {str(self.folder)!r} cannot be read: {reason}") from error
    image = np.empty((len(indices), *self.shape), np.uint8)
    for row, (index, example) in enumerate(zip(indices, examples)):
      name = f"example {index} of {self.name}"
      picture = pictures.decode(example["image"], self.size, self.shape[-1], name)
      image[row] = check_image_shape(picture, self.shape, name)
    if image.max() > self.white:
      raise UserError(f"{self.name} holds zeros and ones at first and level {image.max()} later; it is neither binary nor grey")
    batch = {"image": image * np.uint8(255 // self.white)}
    if self.label:
      batch["label"] = np.array([example[self.label] for example in examples], np.int32)
    return batch

  def made_from(self):
    files = sorted(file for file in self.folder.iterdir() if file.is_file())
    return ["tfds", self.name, self.shape, self.label, self.size, self.white, [decoded.stamp(file) for file in files]]


def _builder(name: str, data_dir):
  root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().resolve()
  if not root.is_dir():
    raise UserError(f"data directory {str(root)!r} is missing; give the folder that holds TFDS sets (--data-dir)")
  match = _NAME.fullmatch(name)
  if not match:
    raise UserError(f"data set {name!r}; a name is like mnist, name/config or name:1.0.0")
  folder = root / match["set"] / (match["config"] or "")
  versions = _versions(folder)
  if match["version"]:
    versions = [version for version in versions if version == match["version"]]
  if not versions:
    there = ", ".join(_prepared(root)) or "none"
    raise UserError(
      f"no prepared data set {name!r} in {str(root)!r}; there: {there}.  To prepare it, with {NEEDED} installed: "
      + prepare_command(name, root)
    )
  import tensorflow_datasets as tfds

  try:
    return tfds.builder_from_directory(folder / versions[-1])
  except Exception as error:  # damaged or foreign metadata
    reason = " ".join(str(error).split())[:200]
    raise UserError(f"{str(folder / versions[-1])!r} cannot be opened as a TFDS set: {reason}") from error


def _open(builder, name: str, split: str, size: int | None, channels: int | None) -> Records:
  import tensorflow_datasets as tfds

  features = dict(builder.info.features)
  image = features.get("image")
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise UserError(f"{name} has no 8-bit pictures named 'image'; its features are {', '.join(features)}")
  height, width, depth = image.shape
  shape = (size or height, size or width, channels or depth)
  if None in shape or shape[-1] not in (1, 3):
    raise UserError(f"pictures of {name} are {list(image.shape)}; give size and channels (1 or 3) to make them alike")
  try:
    records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
  except Exception as error:  # another file format, or files that are missing
    raise UserError(
      f"{name}/{split} in {str(builder.data_dir)!r} cannot be read by random access, which needs complete array_record files.  "
      f"To prepare it, with {NEEDED} installed: {prepare_command(name, Path(builder.data_dir).parents[1])}"
    ) from error
  label = "label" if isinstance(features.get("label"), tfds.features.ClassLabel) else None
  return Records(records, shape, label, size, f"{name}/{split}", Path(builder.data_dir))


def _black_and_white(source: Records) -> bool:
  """Whether the pictures are zeros and ones, as in `binarized_mnist`; binary images are 0 and 255 here."""
  return source.read(range(min(256, source.num)))["image"].max() <= 1


def _versions(folder: Path) -> list[str]:
  """Prepared versions in a folder, oldest first."""
  if not folder.is_dir():
    return []
  prepared = [info.parent.name for info in folder.glob("*/dataset_info.json") if _VERSION.fullmatch(info.parent.name)]
  return sorted(prepared, key=lambda name: [int(part) for part in name.split(".")])


def _prepared(root: Path) -> list[str]:
  """Names of all sets with a prepared version."""
  names = []
  for entry in sorted(root.iterdir()):
    if entry.is_dir():
      names += [entry.name] * bool(_versions(entry))
      names += [f"{entry.name}/{config.name}" for config in sorted(entry.iterdir()) if _versions(config)]
  return names
