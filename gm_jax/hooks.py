"""What a run does besides learning: numbers, pictures, scores.

A hook never touches the state; it looks.  At multiples of its `every`, and at the last step, the loop calls it with the state
and the metrics of that step, and what it returns becomes a line of metrics.jsonl.  A plain function is made a hook by
`at(every, function)`.  The progress bar is in progress.py.  An experiment brings its own: `hooks(config) -> [Hook, ...]` in its
module, which `gm-jax train` calls before the run begins.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable

import jax
import numpy as np

from gm_jax import images, runs, sampling
from gm_jax.errors import CheckpointError, UserError


class Hook:
  """A hook that does nothing: override what you need.

  The state is the loop's own and is gone after the next step: what is to be kept must be copied.  Where several processes train
  one run, every hook is called on all of them; only the first writes.
  """

  every = 0  # steps between calls; 0 for never

  def __call__(self, step: int, state, metrics: dict) -> dict | None:
    """After `step` steps.  A dict returned is logged, here and by the other hooks."""

  def begin(self, run, step: int, steps: int) -> None:
    """Once, before the first step: `step` are done of `steps`; `run` is the directory or None."""

  def tick(self, step: int) -> None:
    """After every call of the compiled step.  Must be cheap."""

  def log(self, step: int, record: dict) -> None:
    """Whatever is reported: the metrics, or what a hook returned."""

  def flush(self) -> None:
    """A checkpoint is about to be committed: what was logged must be on the disk by then."""

  def end(self) -> None:
    """Once, however the loop ends."""


class at(Hook):  # noqa: N801
  """Any function `(step, state, metrics) -> dict or None` as a hook."""

  def __init__(self, every: int, function: Callable):
    self.every, self.function = every, function

  def __call__(self, step, state, metrics):
    return self.function(step, state, metrics)


class JsonLines(Hook):
  """metrics.jsonl; `train` brings its own.

  A checkpoint is committed after the lines up to its step, and a resume cuts the file at its step: so however often a run is
  killed, the file has each line once.
  """

  def begin(self, run, step, steps):
    self.path, self.file = runs.metrics_file(run), None
    if jax.process_index():
      return
    try:
      self.file = open(self.path, "ab")  # noqa: SIM115
      self.file.truncate(_end_of(self.path.read_bytes(), step))
    except OSError as error:
      raise CheckpointError(f"cannot write {self.path}: {error.strerror}") from error

  def log(self, step, record):
    if self.file:
      self.file.write(json.dumps({"step": step, **record}).encode() + b"\n")

  def flush(self):
    if self.file is None:
      return
    try:
      self.file.flush()
      os.fsync(self.file.fileno())
    except OSError as error:
      raise CheckpointError(f"cannot write {self.path}: {error.strerror}") from error

  def end(self):
    # A full disk has been reported by flush; closing must not hide what ended the loop.
    if self.file:
      with contextlib.suppress(OSError):
        self.file.close()


class Evaluation(Hook):
  """`function(state) -> {name: number}`, logged as {"eval": {...}}; evaluate a few batches of the test split, for one."""

  def __init__(self, every: int, function: Callable):
    self.every, self.function = every, function

  def __call__(self, step, state, metrics):
    return {"eval": self.function(state)}


class Pictures(Hook):
  """samples/STEP.png: the same `num` seeds each time, so that one watches pictures form."""

  def __init__(self, every: int, model, *, seed: int = 0, num: int = 64, condition=None, draw: Callable | None = None):
    """`draw(state) -> uint8 [N, H, W, C]` replaces the gallery of `num` images of `seed`; points on the plane are scattered."""
    self.every = every
    self.draw = draw or (lambda state: sampling.draw(model, state, seed=seed, num=num, condition=condition))

  def begin(self, run, step, steps):
    if run is None:
      raise UserError("pictures need a run directory to go to: train(..., run=...)")
    self.directory = runs.samples(run)

  def __call__(self, step, state, metrics):
    array = self.draw(state)
    if jax.process_index() == 0:
      runs.write_atomically(self.directory / f"{step:08d}.png", png(array))


def png(array: np.ndarray) -> bytes:
  """A PNG file of images uint8 [N, H, W, C] as a grid; of points float [N, 1, 1, D] as a histogram if D is 1, else as dots on
  the square [-4, 4], by their first two coordinates."""
  return encode(images.grid(array) if array.dtype == np.uint8 else _plot(array.reshape(len(array), -1)))


def encode(picture: np.ndarray) -> bytes:
  """A PNG file of one picture, uint8 [H, W, 1 or 3]; small ones are enlarged by a whole factor."""
  from PIL import Image

  picture = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
  scale = max(1, 256 // max(picture.size))
  picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
  file = io.BytesIO()
  picture.save(file, "png")
  return file.getvalue()


class TensorBoard(Hook):
  """Every logged number as a scalar, in RUN/tensorboard."""

  def __init__(self):
    try:
      import tensorboardX
    except ImportError:
      raise UserError("TensorBoard needs tensorboardX: pip install 'gm-jax[tensorboard]'") from None
    self.new_writer = tensorboardX.SummaryWriter

  def begin(self, run, step, steps):
    if run is None:
      raise UserError("TensorBoard needs a run directory to write to: train(..., run=...)")
    # A killed run has written further than its last checkpoint: those points are taken back.
    self.writer = self.new_writer(os.path.join(run, "tensorboard"), purge_step=step + 1) if jax.process_index() == 0 else None

  def log(self, step, record):
    if self.writer:
      for name, value in scalars(record):
        self.writer.add_scalar(name, value, step)

  def flush(self):
    if self.writer:
      self.writer.flush()

  def end(self):
    if self.writer:
      self.writer.close()


class WandB(Hook):
  """Every logged number to Weights & Biases, under the directory's name; WANDB_MODE=offline keeps it on this machine."""

  def __init__(self, project: str = "gm_jax", config: dict | None = None):
    try:
      import wandb
    except ImportError:
      raise UserError("Weights & Biases needs wandb: pip install 'gm-jax[wandb]'") from None
    self.wandb, self.settings = wandb, {"project": project, "config": config}

  def begin(self, run, step, steps):
    if run is None:
      raise UserError("Weights & Biases needs a run directory to write to: train(..., run=...)")
    if jax.process_index() == 0:
      name = os.path.basename(os.path.abspath(run))
      self.session = self.wandb.init(dir=os.fspath(run), id=name, name=name, resume="allow", **self.settings)

  def log(self, step, record):
    if jax.process_index() == 0:
      self.session.log(dict(scalars(record)), step=step)

  def end(self):
    if jax.process_index() == 0:
      self.session.finish()


def scalars(record: dict, prefix: str = ""):
  """(name, number) of every number in a record; those of {"eval": {"nll": 1.0}} are named eval/nll."""
  for name, value in record.items():
    if isinstance(value, dict):
      yield from scalars(value, f"{prefix}{name}/")
    elif isinstance(value, (int, float)):
      yield prefix + name, value


def _end_of(content: bytes, step: int) -> int:
  """Length of the whole lines that belong to steps up to `step`."""
  end = 0
  for line in content.splitlines(keepends=True):
    try:
      if json.loads(line)["step"] > step:
        break
    except (ValueError, KeyError, TypeError):
      break
    end += len(line)
  return end


def _plot(points: np.ndarray) -> np.ndarray:
  return _bars(points[:, 0]) if points.shape[1] == 1 else _dots(points[:, :2])


def _bars(values: np.ndarray, size: int = 256, width: int = 8) -> np.ndarray:
  """A histogram from the least value to the greatest, white on black: float [N] -> uint8 [size, size, 1]."""
  counts, _ = np.histogram(values, bins=size // width)
  heights = np.ceil(counts / counts.max() * size).repeat(width)  # a bar with anything in it is seen
  above_ground = size - np.arange(size)[:, None]
  return (255 * (above_ground <= heights)).astype(np.uint8)[..., None]


def _dots(points: np.ndarray, size: int = 256, reach: float = 4.0) -> np.ndarray:
  """White dots on black: float [N, 2] -> uint8 [size, size, 1]."""
  pixel = np.floor((points + reach) / (2 * reach) * size)
  column, row = pixel[(pixel >= 0).all(1) & (pixel < size).all(1)].astype(int).T
  picture = np.zeros((size, size, 1), np.uint8)
  picture[size - 1 - row, column] = 255
  return picture
