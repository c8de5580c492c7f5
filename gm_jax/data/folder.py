"""A folder of pictures as a data set: one class per sub-folder, or no classes if the pictures lie in the folder itself."""

import concurrent.futures
import dataclasses
import os
from pathlib import Path

import numpy as np

from gm_jax.data import decoded, pictures
from gm_jax.data.large import BUDGET, opened
from gm_jax.errors import UserError

HOLD_OUT = 10


def picture_folder(path, split: str = "train", *, size: int, channels: int = 3, budget: int = BUDGET):
  """The pictures under `path`, resized and cropped to squares: uint8 [N, size, size, channels], labels if there are classes.

  If the folder holds folders named "train" and "test", they are the splits (any other folder beside them too); else every tenth
  picture in the order of names is "test".  Links are followed, each folder once.

  Args:
    path: the folder.
    split: which split.
    size: height and width; the shorter side is resized to it and the longer one cropped at the centre.
    channels: 1 (grey) or 3 (RGB).
    budget: bytes; more than that stays on disk and is decoded batch by batch.
  """
  root = Path(path).expanduser()
  if not root.is_dir():
    raise UserError(f"{str(root)!r} is {'not a folder' if root.exists() else 'missing'}; a folder of pictures is needed")
  if size < 1 or channels not in (1, 3):
    raise UserError(f"size {size} with {channels} channels; a positive size and 1 or 3 channels are needed")
  files = _split_files(root, split)
  labels, classes = _classes(files)
  protocol = {"data": root.name, "split": split, "binarization": "none", "source": "folder", "size": size, "channels": channels}
  if classes:
    protocol["classes"] = classes
  return opened(Pictures([file for _, file in files], labels, size, channels), protocol, budget)


@dataclasses.dataclass(frozen=True)
class Pictures:
  """A `large.Source` that decodes files."""

  files: list[Path]
  labels: np.ndarray | None  # int32 [N]
  size: int
  channels: int

  @property
  def num(self) -> int:
    return len(self.files)

  @property
  def num_bytes(self) -> int:
    return self.num * self.size**2 * self.channels

  def read(self, indices):
    read = lambda index: pictures.decode(self.files[index], self.size, self.channels, name=repr(str(self.files[index])))
    # Pillow lets go of the interpreter while it decodes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      batch = {"image": np.stack(list(pool.map(read, indices)))}
    if self.labels is not None:
      batch["label"] = self.labels[indices]
    return batch

  def made_from(self):
    labels = None if self.labels is None else self.labels.tolist()
    return ["folder", self.size, self.channels, labels, [decoded.stamp(file.absolute()) for file in self.files]]


def _split_files(root: Path, split: str) -> list[tuple[str, Path]]:
  """(class folder or "", file) of every picture of the split, in the order of their names."""
  if (root / "train").is_dir() and (root / "test").is_dir():
    splits = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if split not in splits:
      raise UserError(f"{str(root)!r} has no split {split!r}; there are {', '.join(splits)}")
    files = _find(root / split)
  else:
    if split not in ("train", "test"):
      raise UserError(f"{str(root)!r} has no split {split!r}; there are train, test (every {HOLD_OUT}th picture)")
    files = [file for index, file in enumerate(_find(root)) if (index % HOLD_OUT == HOLD_OUT - 1) == (split == "test")]
  if not files:
    suffixes = ", ".join(sorted(pictures.SUFFIXES))
    raise UserError(f"no pictures for split {split!r} in {str(root)!r}; files that end in {suffixes} are read")
  return files


def _find(root: Path) -> list[tuple[str, Path]]:
  seen, found = set(), []
  for folder, names, files in os.walk(root, followlinks=True):
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:  # a link back up the tree
      names.clear()
      continue
    seen.add((status.st_dev, status.st_ino))
    names[:] = sorted(name for name in names if not name.startswith("."))
    inside = Path(folder).relative_to(root).parts
    for name in sorted(files):
      file = Path(folder, name)
      # Pipes and devices are passed over: opening one would wait for ever.  A broken link is kept, so that it is reported.
      if file.suffix.lower() in pictures.SUFFIXES and not name.startswith(".") and (file.is_file() or not file.exists()):
        found.append((inside[0] if inside else "", file))
  return sorted(found, key=lambda entry: entry[1].relative_to(root).parts)


def _classes(files) -> tuple[np.ndarray | None, list[str]]:
  names = sorted({name for name, _ in files})
  if "" in names:
    return None, []
  return np.array([names.index(name) for name, _ in files], np.int32), names
