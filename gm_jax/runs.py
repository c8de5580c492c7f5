"""A run is one directory, and its path is all that is needed to resume, sample, evaluate or compare it.

    config.json      what was asked for
    metrics.jsonl    what was seen: one JSON object per line, {"step": 100, "loss": 1.2} or {"step": 100, "eval": {...}}
    checkpoints/     what was learnt (checkpoint.py)
    samples/         what it looked like: 00000100.png
    pictures/        what else the experiment has to show: NAME.png
    report.json      the last evaluation
"""

import contextlib
import fcntl
import json
import os
import pathlib

from gm_jax.errors import CheckpointError, UserError


def config_file(run) -> pathlib.Path:
  return pathlib.Path(run) / "config.json"


def metrics_file(run) -> pathlib.Path:
  return pathlib.Path(run) / "metrics.jsonl"


def checkpoints(run) -> pathlib.Path:
  return pathlib.Path(run) / "checkpoints"


def samples(run) -> pathlib.Path:
  return pathlib.Path(run) / "samples"


def pictures(run) -> pathlib.Path:
  return pathlib.Path(run) / "pictures"


def report_file(run) -> pathlib.Path:
  return pathlib.Path(run) / "report.json"


def is_run(path) -> bool:
  return config_file(path).is_file()


def open_run(path, config: dict, *, free=()) -> bool:
  """Make `path` the run of `config`, or check that it already is; True if it was one before.  Arguments as for `check_run`."""
  existing = check_run(path, config, free=free)
  if not existing or read_config(path) != _as_json(config):
    _write_config(pathlib.Path(path), config)
  return existing


def check_run(path, config: dict, *, free=()) -> bool:
  """Whether `path` is the run of `config` already; nothing is written.

  Args:
    path: need not exist; if it does, it is empty or a run.
    config: any JSON object; nested fields are named with dots.
    free: fields that may change from one resume to the next; the file then holds the new values.  `steps` may always grow.

  Raises:
    UserError: the run has another configuration, or the path is something else.
  """
  path = pathlib.Path(path)
  if is_run(path):
    _compare(path, read_config(path), _as_json(config), set(free))
    return True
  if path.exists() and not path.is_dir():
    raise UserError(f"{path} is a file; a run is a directory")
  if path.is_dir() and any(path.iterdir()):
    raise UserError(f"{path} has files in it but no config.json: it is not a run; name a new or an empty directory")
  return False


def read_config(path) -> dict:
  """The configuration of a run; UserError if `path` is not one."""
  file = config_file(path)
  try:
    config = json.loads(file.read_bytes())
  except OSError as error:
    raise UserError(f"{path} is not a run: {file} cannot be read ({error.strerror})") from error
  except ValueError as error:
    raise UserError(f"{file} is not JSON ({error})") from error
  if not isinstance(config, dict):
    raise UserError(f"{file} holds {type(config).__name__} instead of an object")
  return config


def read_metrics(path) -> list[dict]:
  """The lines of a run's metrics.jsonl, in order of step; a half-written last line is left out."""
  file = metrics_file(path)
  lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
  return [json.loads(line) for line in lines if line.endswith(b"\n")]


def write_atomically(path, content: bytes) -> None:
  """The file has its old content or this, whatever happens on the way; CheckpointError if the disk refuses."""
  path = pathlib.Path(path)
  draft = path.with_name(f".{path.name}.tmp")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(draft, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      draft.unlink(missing_ok=True)
    raise CheckpointError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def only_one(run):
  """Within the block no other process trains this run.  The lock goes with its holder, however that ends."""
  file = pathlib.Path(run) / ".lock"
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = open(file, "wb")  # noqa: SIM115
  except OSError as error:
    raise CheckpointError(f"cannot write {file}: {error.strerror}") from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f"another process is training {run}; wait for it, or name another directory") from None
    except OSError:
      pass  # A file system without locks.
    yield


def _as_json(config: dict) -> dict:
  """What the file would give back: tuples are lists."""
  return json.loads(json.dumps(config))


def _write_config(path: pathlib.Path, config: dict) -> None:
  try:
    write_atomically(config_file(path), (json.dumps(config, indent=2) + "\n").encode())
  except CheckpointError as error:
    raise UserError(str(error)) from error


def _compare(path: pathlib.Path, old: dict, new: dict, free: set[str]) -> None:
  old, new = _flat(old), _flat(new)
  for name in sorted({*old, *new} - free):
    before, now = (json.dumps(side[name]) if name in side else "nothing" for side in (old, new))
    if before == now or (name.rpartition(".")[2] == "steps" and _grows(old.get(name), new.get(name))):
      continue
    raise UserError(f"{path} was begun with {name} = {before}, not {now}: keep it, or name another directory")


def _grows(before, now) -> bool:
  return isinstance(before, int) and isinstance(now, int) and now >= before


def _flat(config: dict, prefix: str = "") -> dict:
  fields = {}
  for name, value in config.items():
    fields.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
  return fields
