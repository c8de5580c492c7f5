"""A run on disk, opened by its path alone: experiment, configuration, model and state, without its data."""

import dataclasses
import pathlib
import sys
from types import ModuleType
from typing import Any, NamedTuple

import experiments
from gm_jax import runs
from gm_jax.errors import UserError

STORED = {"experiment": str, "config": dict, "shapes": dict}  # what config.json must hold, see `describe`


class Run(NamedTuple):
  """What config.json says.

  Attributes:
    path: the directory.
    name: of the experiment.
    module: the experiment.
    config: the experiment's Config as the run has it.
    shapes: `{name: [shape, dtype]}` of a training batch, so that the state's shapes are known without the data.
    num_labels: how many classes the training data had; None if it had no labels.
  """

  path: pathlib.Path
  name: str
  module: ModuleType
  config: Any
  shapes: dict
  num_labels: int | None


def open_run(path: pathlib.Path) -> Run:
  """The run in a directory; UserError where config.json is not what `describe` wrote."""
  from experiments import base

  file, stored = runs.config_file(path), runs.read_config(path)
  for name, kind in STORED.items():
    if not isinstance(stored.get(name), kind):
      raise UserError(f"{file} has no {name!r}: it was not written by `gm-jax train`")
  try:
    module = experiments.load(stored["experiment"])
    config = base.from_json(module.Config, stored["config"])
  except UserError as error:
    raise UserError(f"{file}: {error}") from None
  return Run(path, stored["experiment"], module, config, stored["shapes"], stored.get("num_labels"))


def describe(name: str, config, batch: dict, train) -> dict:
  """config.json: enough to open the run again without its data.  `batch` is a batch of the data set `train`."""
  labels = getattr(train, "arrays", {}).get("label")
  return {
    "experiment": name,
    "config": dataclasses.asdict(config),
    "shapes": {key: [[*array.shape], str(array.dtype)] for key, array in batch.items()},
    "num_labels": None if labels is None else int(labels.max()) + 1,
  }


def restore(run: Run, model, strategy) -> tuple[int, Any]:
  """(step, state) of the newest whole checkpoint; if a newer one is damaged, a line on standard error says so."""
  from gm_jax import checkpoint
  from gm_jax.cli import cache

  cache.switch_on()
  example = strategy.abstract_state(model.init, batch_like(run))
  return checkpoint.restore(runs.checkpoints(run.path), example, notify=lambda line: print(f"gm-jax: {line}", file=sys.stderr))


def batch_like(run: Run) -> dict:
  """A training batch, but for its values: {name: ShapeDtypeStruct}."""
  import jax

  try:
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in run.shapes.items()}
  except (TypeError, ValueError):
    raise UserError(f"{runs.config_file(run.path)} holds {run.shapes!r} as shapes; each entry is [shape, dtype]") from None


def uses_labels(run: Run, model, state) -> bool:
  """Whether the model's sampler looks at the condition that it is given."""
  import jax
  import numpy as np

  draw = lambda condition: model.sample(jax.random.key(0), state, 1, condition)
  traced = jax.make_jaxpr(draw)(np.zeros(1, np.int32)).jaxpr
  return any(variable is traced.invars[0] for equation in traced.eqns for variable in equation.invars)


def reports(run: Run, model, state) -> list[str]:
  """The names under which the model's `evaluate` reports."""
  import jax

  return [*jax.eval_shape(model.evaluate, jax.random.key(0), state, batch_like(run))]


def scores_labels(run: Run, model, state, name: str) -> bool:
  """Whether what the model's `evaluate` reports under `name` depends on the labels of the batch."""
  import jax

  batch = batch_like(run)
  if "label" not in batch:
    return False
  score = lambda label, rest: model.evaluate(jax.random.key(0), state, {**rest, "label": label})[name]
  traced = jax.make_jaxpr(score)(batch.pop("label"), batch).jaxpr
  reached = {id(traced.invars[0])}
  for equation in traced.eqns:
    if reached & {*map(id, equation.invars)}:
      reached |= {*map(id, equation.outvars)}
  return id(traced.outvars[0]) in reached
