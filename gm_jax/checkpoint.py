"""A state on disk that is either whole or not there.

    checkpoints/00001000/     committed: every file is listed, with its SHA-256, in MANIFEST.json
    checkpoints/tmp-00002000/     being written; no one reads it
    checkpoints/trash-00000500/     being deleted; no one reads it

A checkpoint is written under its first name, hashed, flushed to the disk and then renamed: the one instant at which it begins
to exist.  It is deleted in the reverse order.  So a process may be killed anywhere in here and the directory still holds what
it held before, or what it was to hold.  Reading verifies every hash, because the array format does not notice a flipped bit.

Orbax writes and reads the arrays, sharded or not, from any number of processes; this is the only file that knows it.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import shutil
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import CheckpointError, DamagedError, NonFiniteError, UserError

FORMAT = 1
MANIFEST, SEAL, ARRAYS = "MANIFEST.json", "MANIFEST.sha256", "arrays"

_log = logging.getLogger("gm_jax")


class Leaf(NamedTuple):
  """What a manifest says of one array."""

  path: str  # as in net/params/Dense_0/kernel
  shape: tuple[int, ...]
  dtype: str

  def __str__(self):
    return f"{self.path} {self.dtype}{list(self.shape)}"


def save(directory, step: int, state, extra: dict | None = None) -> pathlib.Path:
  """Write `state` as the checkpoint of `step`, replacing one of the same step; returns its path.

  Every process of a run calls this.  `extra` is JSON that travels along, see `read_extra`.

  Raises:
    NonFiniteError: a leaf holds a NaN; nothing was written.
    CheckpointError: the disk refused; the earlier checkpoints are as they were.
  """
  directory = pathlib.Path(directory).absolute()
  leaves = _leaves(state)
  _refuse_nan(step, leaves)
  final, draft = directory / _name(step), directory / f"tmp-{_name(step)}"
  complaint = f"cannot write checkpoint {final}"
  try:
    _together(lambda: _prepare(directory, draft, leaves), complaint)
    _everyone(lambda: _write_arrays(draft, leaves), complaint)
    _together(lambda: _commit(draft, final, step, leaves, extra), complaint)
  except CheckpointError:
    shutil.rmtree(draft, ignore_errors=True)
    raise
  return final


def restore(directory, example, step: int | None = None, notify: Callable[[str], None] = _log.warning) -> tuple[int, Any]:
  """The newest checkpoint that is whole, or that of `step`: `(step, state)`.

  Args:
    directory: as given to `save`.
    example: a state, or its abstract form (`Strategy.abstract_state`): tree, shapes, dtypes, and where each leaf is to live.
    step: which one; it is then not an option to fall back to another.
    notify: told, in one line, of every damaged checkpoint that was passed over.

  Raises:
    DamagedError: there is none, or none is whole.
    UserError: the checkpoint has another tree, shape or dtype.
  """
  directory = pathlib.Path(directory).absolute()
  chosen = _together(lambda: _newest_whole(directory, step, notify), f"cannot read {directory}")
  path = directory / _name(chosen)
  _compare(path, _read_manifest(path)["leaves"], _leaves(example))
  try:
    return chosen, _read_arrays(path, example)
  except Exception as error:
    raise DamagedError(f"cannot read checkpoint {path}: {_one_line(error)}") from error


def steps(directory) -> list[int]:
  """The steps that have a committed checkpoint, oldest first."""
  directory = pathlib.Path(directory)
  return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal()) if directory.is_dir() else []


def read_extra(directory, step: int) -> dict:
  """What `save` was given as `extra`."""
  return _read_manifest(pathlib.Path(directory) / _name(step))["extra"]


def verify(directory) -> list[str]:
  """One line per damaged file of any checkpoint; empty when all is well."""
  directory = pathlib.Path(directory)
  return [f"checkpoint {step}: {problem}" for step in steps(directory) for problem in problems(directory / _name(step))]


def problems(path) -> list[str]:
  """What is wrong with one checkpoint: a line for each file that is missing or not what was written."""
  path = pathlib.Path(path)
  try:
    manifest = (path / MANIFEST).read_bytes()
    if (path / SEAL).read_bytes() != _seal(manifest):
      return [f"{MANIFEST} does not match {SEAL}"]
  except OSError as error:
    return [f"{pathlib.Path(error.filename or path).name} cannot be read ({error.strerror})"]
  manifest = json.loads(manifest)
  found = [f"{MANIFEST} is of step {manifest['step']}"] if path.name != _name(manifest["step"]) else []
  for name, (size, digest) in manifest["files"].items():
    file = path / name
    try:
      if file.stat().st_size != size:
        found.append(f"{name} has {file.stat().st_size} bytes instead of {size}")
      elif _sha256(file) != digest:
        found.append(f"{name} has changed since it was written")
    except OSError as error:
      found.append(f"{name} cannot be read ({error.strerror})")
  return found


def prune(directory, newest: int, keep: int) -> None:
  """Delete all but the `keep` last checkpoints up to step `newest`.

  Later ones go too: a run that has reached `newest` after them found them damaged when it resumed.
  """
  directory = pathlib.Path(directory)
  kept = [step for step in steps(directory) if step <= newest][-keep:]
  if jax.process_index() == 0:
    for step in sorted(set(steps(directory)) - set(kept)):
      _remove(_set_aside(directory / _name(step)))


def clean(directory) -> None:
  """Remove what a killed process left half-written or half-deleted."""
  if jax.process_index() == 0:
    for pattern in ("tmp-*", "trash-*"):
      for path in pathlib.Path(directory).glob(pattern):
        shutil.rmtree(path, ignore_errors=True)


def kill_point(name: str) -> None:
  """Here the process dies as if by kill -9, at the n-th visit, if the environment says GM_JAX_FAULT=name:n.  Tests say so."""
  wanted, _, count = os.environ.get("GM_JAX_FAULT", "").rpartition(":")
  if wanted == name:
    _visits[name] = _visits.get(name, 0) + 1
    if _visits[name] == int(count):
      os.kill(os.getpid(), signal.SIGKILL)


_visits: dict[str, int] = {}


# ---- one checkpoint: arrays, manifest, commit ----


def _prepare(directory: pathlib.Path, draft: pathlib.Path, leaves: dict) -> None:
  directory.mkdir(parents=True, exist_ok=True)
  needed = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves.values())
  free = shutil.disk_usage(directory).free
  if free < needed + 2**20:
    raise OSError(f"it takes {needed / 1e6:.1f} MB and the disk has {free / 1e6:.1f} left")
  if draft.exists():
    shutil.rmtree(draft)
  draft.mkdir()


def _write_arrays(draft: pathlib.Path, leaves: dict) -> None:
  from orbax.checkpoint import v1 as ocp

  # Orbax stores no empty arrays; the manifest's shape says all there is to know of one.
  full = {path: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf) for path, leaf in leaves.items() if leaf.size}
  if full:
    with _own_words():
      ocp.save(draft / ARRAYS, full)
  kill_point("save:arrays")


def _commit(draft: pathlib.Path, final: pathlib.Path, step: int, leaves: dict, extra: dict | None) -> None:
  files = sorted(path for path in draft.rglob("*") if path.is_file())
  manifest = {
    "format": FORMAT,
    "step": step,
    "extra": extra or {},
    "files": {path.relative_to(draft).as_posix(): [path.stat().st_size, _sha256(path)] for path in files},
    "leaves": [_describe(path, leaf) for path, leaf in leaves.items()],
  }
  text = json.dumps(manifest, indent=1).encode()
  (draft / MANIFEST).write_bytes(text)
  (draft / SEAL).write_bytes(_seal(text))
  kill_point("save:manifest")
  # The disk must hold the contents before it holds the name.
  for path in [*draft.rglob("*"), draft]:
    _fsync(path)
  kill_point("save:flushed")
  replaced = _set_aside(final) if final.exists() else None
  os.rename(draft, final)
  kill_point("save:renamed")
  _fsync(final.parent)
  if replaced:
    _remove(replaced)


def _set_aside(path: pathlib.Path) -> pathlib.Path:
  trash = path.with_name(f"trash-{path.name}")
  shutil.rmtree(trash, ignore_errors=True)
  os.rename(path, trash)
  kill_point("delete:renamed")
  return trash


def _remove(trash: pathlib.Path) -> None:
  for file in trash.rglob("*"):
    if file.is_file():
      file.unlink()
      kill_point("delete:file")
  shutil.rmtree(trash)


def _newest_whole(directory: pathlib.Path, step: int | None, notify) -> int:
  present = steps(directory)
  if not present or step not in (None, *present):
    raise DamagedError(f"no checkpoint{'' if step is None else f' of step {step}'} in {directory}; it has steps {present}")
  for candidate in [step] if step is not None else reversed(present):
    damage = problems(directory / _name(candidate))
    if not damage:
      return candidate
    notify(f"checkpoint {directory / _name(candidate)} is damaged and passed over: {'; '.join(damage)}")
  raise DamagedError(f"no checkpoint in {directory} is whole; {'; '.join(verify(directory))}")


def _read_manifest(path: pathlib.Path) -> dict:
  manifest = json.loads((path / MANIFEST).read_bytes())
  if manifest["format"] != FORMAT:
    raise UserError(f"{path} has checkpoint format {manifest['format']}; this version of gm_jax reads {FORMAT}")
  manifest["leaves"] = [Leaf(name, tuple(shape), dtype) for name, shape, dtype in manifest["leaves"]]
  return manifest


@contextlib.contextmanager
def _own_words():
  """Orbax logs a failure several times over, with tracebacks, besides raising it; we say it once, in one line."""
  logger = logging.getLogger("absl")
  before = logger.disabled
  logger.disabled = True
  yield
  # Not after a failure: Orbax's threads go on complaining then.
  logger.disabled = before


def _read_arrays(path: pathlib.Path, example):
  from orbax.checkpoint import v1 as ocp

  abstract = {name: _abstract(leaf) for name, leaf in _leaves(example).items()}
  full = {name: leaf for name, leaf in abstract.items() if leaf.size}
  with _own_words():
    arrays = ocp.load(path / ARRAYS, full) if full else {}
  empty = lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
  leaves = [arrays[name] if name in arrays else empty(leaf) for name, leaf in abstract.items()]
  return jax.tree.unflatten(jax.tree.structure(example), leaves)


def _compare(path: pathlib.Path, stored: list[Leaf], leaves: dict) -> None:
  wanted = [_describe(name, leaf) for name, leaf in leaves.items()]
  for index in range(max(len(stored), len(wanted))):
    have, want = (str(side[index]) if index < len(side) else "nothing more" for side in (stored, wanted))
    if have != want:
      raise UserError(f"checkpoint {path} holds {have} where this model has {want}: is it a run of another model?")


# ---- leaves ----


def _leaves(state) -> dict:
  """{path: leaf}, in the tree's own order."""
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  return {name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _describe(path: str, leaf) -> Leaf:
  return Leaf(path, tuple(leaf.shape), str(leaf.dtype))


def _abstract(leaf) -> jax.ShapeDtypeStruct:
  sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _refuse_nan(step: int, leaves: dict) -> None:
  # Infinities may pass: some optimisers begin with the best loss so far, infinity.
  bad = [path for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.inexact) and _holds_nan(leaf)]
  if _any_process(bool(bad)):
    raise NonFiniteError(f"step {step}: {bad[0] if bad else 'a leaf on another process'} holds a NaN; it is not saved")


def _holds_nan(leaf) -> bool:
  shards = [shard.data for shard in leaf.addressable_shards if shard.replica_id == 0] if isinstance(leaf, jax.Array) else [leaf]
  return any(bool(np.isnan(np.asarray(shard)).any()) for shard in shards)


# ---- files ----


def _name(step: int) -> str:
  return f"{step:08d}"


def _seal(manifest: bytes) -> bytes:
  """As `sha256sum` writes it, so that `sha256sum -c` reads it."""
  return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _sha256(path: pathlib.Path) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _one_line(error: BaseException) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


# ---- several processes: what one of them does, all of them learn ----


def _any_process(flag: bool) -> bool:
  if jax.process_count() == 1:
    return flag
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def _everyone(action: Callable[[], None], complaint: str) -> None:
  """Each process acts; all raise if one of them failed."""
  error = None
  try:
    action()
  except Exception as caught:
    error = caught
  if isinstance(error, CheckpointError) and jax.process_count() == 1:
    raise error
  if _any_process(error is not None):
    raise CheckpointError(f"{complaint}: {_one_line(error) if error else 'another process failed'}") from error


def _together(action: Callable[[], int | None], complaint: str) -> int:
  """The first process acts; all return its answer, or raise if it failed."""
  answer = []

  def first_acts():
    if jax.process_index() == 0:
      answer.append(action() or 0)

  _everyone(first_acts, complaint)
  if jax.process_count() == 1:
    return answer[0]
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.asarray(answer[0] if answer else 0)))
