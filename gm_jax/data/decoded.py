"""Decoded data sets, kept between runs: 60,000 PNGs take seconds to decode, the array they make takes a tenth of one to read.

A copy is named after everything it was made from, the size and time of the record files included, so that it is never out of
date.  It lies in the user's cache directory, may be deleted at any time, and what cannot be written is decoded again.
"""

import hashlib
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

WORTH_KEEPING = 2.0  # seconds of decoding
FORMAT = 1  # to be raised when decoding changes


def directory() -> Path:
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gm_jax" / "data"


def stamp(path: Path) -> list:
  """A file as far as anything made from it is concerned: name, size and time."""
  try:
    status = path.stat()
  except OSError:
    return [str(path)]
  return [str(path), status.st_size, status.st_mtime_ns]


def remember(make: Callable[[], dict[str, np.ndarray]], made_from) -> dict[str, np.ndarray]:
  """`make()`, or what it gave when it was last called with the same `made_from` (anything JSON can write)."""
  path = directory() / (hashlib.sha256(json.dumps([FORMAT, made_from]).encode()).hexdigest()[:32] + ".npz")
  try:
    with np.load(path, allow_pickle=False) as stored:  # an npz carries a checksum of every array, and reading compares it
      return {name: stored[name] for name in stored.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile):
    pass
  start = time.monotonic()
  arrays = make()
  if time.monotonic() - start >= WORTH_KEEPING:
    _keep(path, arrays)
  return arrays


def _keep(path: Path, arrays: dict[str, np.ndarray]) -> None:
  temporary = None
  try:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
      temporary = file.name
      np.savez(file, **arrays)
    os.replace(temporary, path)  # at once or not at all, also when several runs write it
  except OSError:  # a full or read-only disk costs only the time to decode again
    if temporary and os.path.exists(temporary):
      os.unlink(temporary)
