"""MNIST in a few evaluations: a trained diffusion model distilled, by halving its steps or into a consistency model.

The teacher is a run of `edm_mnist`, `flow_matching_mnist` or `ddpm_mnist`, and has to stay where it is.  Its guidance is learnt
with the rest, and costs nothing any more.  "denoising" is the method's own error.

Family: score
Command: gm-jax train distilled_mnist --teacher RUN --data-dir DIR
Hardware: 2 CPU cores
Minutes: not measured yet
Expected: not measured yet

`gm-jax sample RUN --label 3` asks for a digit.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from experiments import base, denoisers
from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.score import consistency, diffusion, grids, progressive

SHAPE, CLASSES = (28, 28, 1), 10


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  teacher: str | None = None  # the run of the model to distil
  method: Literal["progressive", "consistency"] = "progressive"
  steps: int = 2400
  batch_size: int = 64
  first_steps: int = 32  # of DDIM that progressive distillation begins with
  rounds: int = 3  # how often it halves them
  num_levels: int = 18  # of consistency distillation
  sample_steps: int = 2  # of a consistency model
  guidance: float = 2.0  # scale that the teacher is guided by: 1 is none
  learning_rate: float = 3e-4  # of Adam, falling to nothing along a cosine
  decay: float = 0.99  # of the average of the parameters

  LEAST = base.Run.LEAST | {"first_steps": 2, "rounds": 1, "num_levels": 2, "sample_steps": 1}


class Taught(NamedTuple):
  """A trained denoiser."""

  module: diffusion.Denoiser
  variables: Any


@functools.cache
def taught(path: str | None) -> Taught:
  """The teacher; UserError if there is none, or it is not a diffusion model of MNIST."""
  from gm_jax import parallel
  from gm_jax.cli import opened

  if path is None:
    raise UserError("distilled_mnist has nothing to distil: give --teacher RUN, a run of edm_mnist")
  run = opened.open_run(pathlib.Path(path))
  told = [getattr(run.module, name, None) for name in ("RECIPE", "SHAPE", "CLASSES")]
  if not isinstance(run.config, denoisers.Diffusion) or told[1:] != [SHAPE, CLASSES]:
    raise UserError(f"--teacher {path} is a run of {run.name}; take one of edm_mnist, flow_matching_mnist or ddpm_mnist")
  _, state = opened.restore(run, run.module.model(run.config), parallel.single())
  return Taught(denoisers.module(run.config, told[0], CLASSES), jax.device_get(state.average.variables))


def model(config: Config):
  teacher = taught(config.teacher)
  told = dict(image_shape=SHAPE, guidance=denoisers.steering(config, CLASSES), decay=config.decay)
  if config.method == "progressive":
    steps = max(config.steps // config.rounds, 1)
    told |= dict(rounds=config.rounds, round_steps=steps)
    return progressive.progressive(*teacher, falling(config, steps), denoisers.grid(config.first_steps), **told)
  levels = grids.karras(config.num_levels - 1, denoisers.LEAST, denoisers.LARGEST, last=None)
  between = grids.karras(config.sample_steps, 0.8, denoisers.LARGEST)  # the last level that is mapped to an image
  sampler = diffusion.Sampler(consistency.Multistep(denoisers.LEAST)(between))
  return consistency.consistency_distillation(*teacher, falling(config, config.steps), sampler, grid=levels, **told)


def falling(config: Config, steps: int) -> optax.GradientTransformation:
  rate = optax.cosine_decay_schedule(config.learning_rate, steps)
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def data(config: Config):
  taught(config.teacher)  # a wrong one is found before the data are read
  return base.mnist(config)


def pictures(config: Config, state) -> dict[str, np.ndarray]:
  """A column for each class."""
  label = np.tile(np.arange(CLASSES), 8).astype(np.int32)
  draw = jax.jit(model(config).sample, static_argnums=2)
  drawn = np.asarray(draw(random.stream(0, random.SAMPLE), state, len(label), label))
  return {"classes": images.grid(drawn, columns=CLASSES)}
