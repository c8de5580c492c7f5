"""What the experiments share: the fields that every run has, and the data sets that several of them use."""

import dataclasses
import difflib
import math
import typing
from typing import Any, ClassVar, Literal

from gm_jax import data
from gm_jax.errors import UserError

Strategy = Literal["single", "dp", "fsdp", "pmap", "ensemble"]

# Fields that may change when a run is resumed: none of them has a say in what is learnt.
FREE = ("data_dir", "strategy", "tensorboard", "wandb")
FREE += ("log_every", "save_every", "sample_every", "evaluate_every", "num_samples")


@dataclasses.dataclass(frozen=True)
class Run:
  """The fields of every run; an experiment's `Config` adds its own.  All of them are options of `gm-jax train`."""

  steps: int = 1000  # steps of training in all; raise it to carry a finished run on
  batch_size: int = 128  # examples per step, over all devices together
  seed: int = 0  # everything random in the run is a function of it
  data_dir: str | None = None  # where TFDS keeps its data sets; None: TFDS's own default
  strategy: Strategy = "dp"  # how state and batch are laid over the devices
  log_every: int = 50  # steps between lines of metrics.jsonl
  save_every: int = 500  # steps between checkpoints
  sample_every: int = 500  # steps between pictures; 0: only at the end
  evaluate_every: int = 0  # steps between evaluations on the test split; 0: never
  num_samples: int = 64  # images per picture
  tensorboard: bool = False  # write RUN/tensorboard as well; needs the extra of that name
  wandb: bool = False  # log to Weights & Biases as well; needs the extra of that name

  # The least value of each number; every other number of a Config is at least 0, and none is infinite or NaN.
  LEAST: ClassVar[dict[str, float]] = {"steps": 1, "batch_size": 1, "log_every": 1, "save_every": 1, "num_samples": 1}

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, (int, float)):
        self._check_number(field.name, value)

  def _check_number(self, name: str, value: float):
    least, most = self.LEAST.get(name, 0), 2**32 - 1 if name == "seed" else 2**31 - 1
    if isinstance(value, int) and not least <= value <= most:
      raise UserError(f"{option(name)} is {value}; take a number from {least} to {most}")
    if not (math.isfinite(value) and value >= least):
      raise UserError(f"{option(name)} is {value}; take a finite number of at least {least}")


@dataclasses.dataclass(frozen=True)
class Counting(Run):
  """A run that counts a training split of 50,000 images, once."""

  steps: int = 1
  batch_size: int = 50_000  # the training split


def option(name: str) -> str:
  """A field as it is written on the command line: batch_size -> --batch-size."""
  return "--" + name.replace("_", "-")


def from_json(config_class: type[Run], values: Any) -> Run:
  """The Config that `dataclasses.asdict` wrote; UserError names the first field whose name or type is wrong."""
  if not isinstance(values, dict):
    raise UserError(f"a configuration is an object of fields and values, not {values!r}")
  types = typing.get_type_hints(config_class)
  names = [field.name for field in dataclasses.fields(config_class)]
  for name, value in values.items():
    if name not in names:
      near = difflib.get_close_matches(name, names, n=3) or names
      raise UserError(f"unknown field {name!r} of {config_class.__module__}.Config; there are: {', '.join(near)}")
    if not _fits(value, types[name]):
      raise UserError(f"field {name!r} is {value!r}; it takes {_words(types[name])}")
  return config_class(**{name: _tuples(value) for name, value in values.items()})


def _fits(value, kind) -> bool:
  """Whether a JSON value is one of a field's type: numbers, text, bool, None, Literal, unions of them and tuples."""
  origin, parts = typing.get_origin(kind), typing.get_args(kind)
  if origin is Literal:
    return value in parts
  if origin is tuple:
    return isinstance(value, (list, tuple)) and all(_fits(entry, parts[0]) for entry in value)
  if parts:
    return any(_fits(value, part) for part in parts)
  if kind in (int, float):  # True is an int to Python and not to us; 1 is a fine float
    return isinstance(value, (int, kind)) and not isinstance(value, bool)
  return isinstance(value, kind)


def _words(kind) -> str:
  return getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind).removeprefix("typing.")


def _tuples(value):
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def digits() -> dict[str, data.Dataset]:
  """The embedded handwritten digits, 8 x 8, grey."""
  return {split: data.digits(split) for split in ("train", "test")}


def mnist(config: Run) -> dict[str, data.Dataset]:
  """MNIST by TFDS, 28 x 28, grey."""
  return {split: data.tfds_images("mnist", split, config.data_dir) for split in ("train", "test")}


FRAMED = 32  # pixels a side: a size that can be halved often


def framed_mnist(config: Run) -> dict[str, data.Dataset]:
  """MNIST in the middle of black frames of 32 x 32."""
  return {split: data.padded(dataset, FRAMED) for split, dataset in mnist(config).items()}


def binarized_mnist(config: Run) -> dict[str, data.Dataset]:
  """MNIST as Larochelle binarised it once and for all: the data on which nats are compared."""
  return {split: data.tfds_images("binarized_mnist", split, config.data_dir) for split in ("train", "validation", "test")}
