"""Rectified flow on the plane, straightened: a flow learns the data, and a second one the couples that the first makes.

`gm-jax evaluate` reports, for noise of its own, "straightness" (0: one step of Euler's is exact) and "one_step", the squared
distance of a sample of one step from that of 64; both also "before".  "gap" is log p_true(x) - log p_model(x)
by the second flow, in nats, whose mean is KL(true || model): straightening is not to change the law.

Family: score
Command: gm-jax train reflow_points
Hardware: 2 CPU cores
Minutes: 1.6
Expected: one_step 0.0007 (before: 0.98), straightness 0.00003 (before: 0.31), gap 0.134 +- 0.008 nats, seed 0

`gm-jax solvers RUN` holds solvers against each other on the second flow.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from experiments import diffusion_points, point_pictures
from gm_jax import random
from gm_jax.score import diffusion, distillation, grids, likelihood, multistep, noise, reflow, solvers
from gm_jax.tasks.editing import Editor

SHAPE = (1, 1, 2)
POINTS = dict(image_shape=SHAPE, write=lambda x: x)


@dataclasses.dataclass(frozen=True)
class Config(diffusion_points.Config):
  recipe: Literal["edm", "flow-matching"] = "flow-matching"
  steps: int = 6000  # of both flows together
  first_steps: int = 4500  # of the first flow; those of the second cost several times as much
  couple_steps: int = 12  # of the solver that makes couples
  decay: float = 0.995  # of the average of the parameters

  LEAST = diffusion_points.Config.LEAST | {"first_steps": 1, "couple_steps": 1}


def grid(num_steps: int):
  return grids.in_time(noise.straight(), num_steps)


def euler(num_steps: int) -> diffusion.Sampler:
  return diffusion.Sampler(solvers.DDIM()(grid(num_steps)))


def model(config: Config):
  module, decay = diffusion_points.module(config), config.decay
  rate = lambda steps: optax.adam(optax.cosine_decay_schedule(config.learning_rate, max(steps, 1)))
  couples = multistep.DPMpp(2)(grid(config.couple_steps))
  told = diffusion_points.recipe(config)
  points = dict(**POINTS, decay=decay)
  first = diffusion.diffusion(module.network, rate(config.first_steps), told, euler(40), read=jnp.asarray, **points)
  optimizer = rate(config.steps - config.first_steps)
  second = lambda teacher: reflow.reflow(module, teacher, optimizer, couples, euler(1), **points)
  return distillation.after(first, second, first_steps=config.first_steps)


def data(config: Config):
  return diffusion_points.data(config)


def flows(config: Config, state) -> dict:
  """The denoisers of the first flow and of the second."""
  of = lambda part: diffusion.denoiser(diffusion_points.module(config), part)
  return {"before": of(state.first), "after": of(state.second)}


def measure(config: Config):
  scores = likelihood.measure(diffusion_points.module(config), num_steps=64, num_probes=None)

  def evaluate(key, state, batch):
    score_key, noise_key = jax.random.split(key)
    found = scores(score_key, state.second, batch)
    reports = {"nll": found["nll"], "nll_error": found["nll_error"], "gap": batch["true_log_prob"] + found["nll"]}
    x = random.normal(noise_key, len(batch["image"]), SHAPE)
    for name, denoise in flows(config, state).items():
      one, many = (reflow.couple(denoise, euler(steps).method, x) for steps in (1, 64))
      suffix = "" if name == "after" else "_before"
      reports["straightness" + suffix] = reflow.straightness(denoise, x, grid(64))
      reports["one_step" + suffix] = jnp.square(one - many).sum((1, 2, 3))
    return reports

  return evaluate


def editor(config: Config) -> Editor:
  return Editor(lambda state: flows(config, state)["after"], grid, read=jnp.asarray, write=lambda x: x)


def pictures(config: Config, state) -> dict:
  """The data, and 2,000 samples of one step of each flow, beside those of many steps of the first."""
  both, key = flows(config, state), random.stream(0, random.SAMPLE)
  draw = lambda name, steps: jax.jit(lambda key: euler(steps)(both[name], key, 2000, SHAPE))(key)
  panels = {
    "data": data(config)["test"].arrays["image"][:2000],
    "first flow, 40 steps": draw("before", 40),
    "first flow, 1 step": draw("before", 1),
    "reflowed, 1 step": draw("after", 1),
  }
  return {"points": point_pictures.scattered(panels, diffusion_points.REACH)}
