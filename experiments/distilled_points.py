"""Samples of one step on the plane, three ways: progressive distillation, consistency distillation, consistency training.

A teacher learns the data first, but for `--method consistency-training`, which needs none.  `gm-jax evaluate` reports
"denoising", the method's own error, and "one_step": the squared distance of the student's sample of one step from the end of
the flow of the teacher, from the same noise ("one_step_before": of the teacher's own step of DDIM).

Family: score
Command: gm-jax train distilled_points
Hardware: 2 CPU cores
Minutes: 1.6
Expected: one_step 0.026 (before: 1.01), seed 0; by --method consistency 0.0004
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from experiments import diffusion_points, point_pictures
from gm_jax import random
from gm_jax.score import (
  consistency,
  diffusion,
  distillation,
  grids,
  multistep,
  neighbours,
  parameterizations,
  progressive,
  solvers,
)

SHAPE = (1, 1, 2)
LEAST, LARGEST = 0.005, 50.0  # sigma / alpha of the levels
POINTS = dict(image_shape=SHAPE, read=jnp.asarray, write=lambda x: x)


@dataclasses.dataclass(frozen=True)
class Config(diffusion_points.Config):
  method: Literal["progressive", "consistency", "consistency-training"] = "progressive"
  recipe: Literal["edm", "flow-matching"] = "edm"  # of the teacher
  steps: int = 9000  # of teacher and student together
  first_steps: int = 5000  # of the teacher
  rounds: int = 4  # of progressive distillation, from 2^rounds steps to one
  num_levels: int = 40  # of consistency distillation; consistency training ends with 160
  decay: float = 0.995  # of the averages of the parameters

  LEAST = diffusion_points.Config.LEAST | {"first_steps": 1, "rounds": 1, "num_levels": 2}


def model(config: Config):
  if config.method == "consistency-training":
    return trained(config)
  recipe, chosen = diffusion_points.recipe(config), diffusion.Sampler(multistep.DPMpp(2)(diffusion_points.grid(40)))
  optimizer = falling(config, config.first_steps)
  first = diffusion.diffusion(diffusion_points.network(config), optimizer, recipe, chosen, **POINTS, decay=config.decay)
  second = {"progressive": halved, "consistency": mapped}[config.method]
  return distillation.after(first, lambda teacher: second(config, teacher), first_steps=config.first_steps)


def falling(config: Config, steps: int) -> optax.GradientTransformation:
  return optax.adam(optax.cosine_decay_schedule(config.learning_rate, max(steps, 1)))


def halved(config: Config, teacher):
  steps = max((config.steps - config.first_steps) // config.rounds, 1)  # of a round
  grid = diffusion_points.grid(2**config.rounds)
  told = dict(rounds=config.rounds, round_steps=steps, **POINTS, decay=config.decay)
  return progressive.progressive(diffusion_points.module(config), teacher, falling(config, steps), grid, **told)


def mapped(config: Config, teacher):
  grid = grids.karras(config.num_levels - 1, LEAST, LARGEST, last=None)
  optimizer = falling(config, config.steps - config.first_steps)
  told = dict(grid=grid, distance=consistency.pseudo_huber(0.03), target_decay=0.9, **POINTS, decay=config.decay)
  return consistency.consistency_distillation(diffusion_points.module(config), teacher, optimizer, one_step(), **told)


def trained(config: Config):
  levels = neighbours.doubling(config.steps, 10, 160)
  inner = parameterizations.karras(1.0)
  told = dict(least=LEAST, largest=LARGEST, distance=consistency.pseudo_huber(0.03), **POINTS, decay=config.decay)
  network = diffusion_points.network(config)
  return consistency.consistency_training(
    network, falling(config, config.steps), one_step(), num_levels=levels, inner=inner, **told
  )


def one_step() -> diffusion.Sampler:
  return diffusion.Sampler(consistency.Multistep(LEAST)(diffusion_points.grid(1)))


def data(config: Config):
  return diffusion_points.data(config)


def measure(config: Config):
  chosen, steps = model(config), diffusion_points.grid
  if config.method == "consistency-training":
    return chosen.evaluate

  def evaluate(key, state, batch):
    score_key, noise_key = jax.random.split(key)
    num, denoise = len(batch["image"]), diffusion.denoiser(diffusion_points.module(config), state.first)
    draw = lambda grid, solver: diffusion.Sampler(solver(grid))(denoise, noise_key, num, SHAPE)
    end, ddim = draw(steps(64), multistep.DPMpp(2)), draw(steps(1), solvers.DDIM())
    student = chosen.sample(noise_key, state, num)  # from the same noise
    far = lambda x: jnp.square(x - end).sum((1, 2, 3))
    return {**chosen.evaluate(score_key, state, batch), "one_step": far(student), "one_step_before": far(ddim)}

  return evaluate


def pictures(config: Config, state) -> dict:
  """As many samples as points of the data beside them, 2,000."""
  drawn = model(config).sample(random.stream(0, random.SAMPLE), state, 2000)
  panels = {"data": data(config)["test"].arrays["image"][:2000], config.method: drawn}
  return {"points": point_pictures.scattered(panels, diffusion_points.REACH)}
