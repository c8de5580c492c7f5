"""Diffusion on the plane, whose law is known: the density by the probability flow against the truth.

`gm-jax evaluate` reports, beside "nll", "gap": log p_true(x) - log p_model(x) in nats, whose mean is KL(true || model); and
"nll_bound", the variational bound.  `gm-jax solvers RUN` holds solvers against each other: iPNDM after 10 evaluations and Euler
after 40 have median distances of 0.011 and 0.018 on the grid, 0.007 and 0.010 on the ring.  Root mean squares are 0.13 and 0.17
there, but 0.050 and 0.019 on the ring, where the largest twentieth of the distances decides them.

Family: score
Command: gm-jax train diffusion_points
Hardware: 2 CPU cores, shared with other work
Minutes: 1.7
Expected: gap 0.0031 +- 0.0012 nats (moons); median distance of iPNDM in 10 evaluations 0.013, of Euler in 40 0.017
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax

from experiments import base, laws
from gm_jax import random
from gm_jax.data import toys
from gm_jax.networks.point_mlp import PointMLP
from gm_jax.score import diffusion, grids, likelihood, multistep, noise, recipes
from gm_jax.tasks.editing import Editor

LAWS = {
  "moons": toys.two_moons(),
  "ring": toys.ring(std=0.1),
  "grid": toys.grid(3, std=0.15),
}
LEAST, LARGEST = 0.005, 20.0  # sigma / alpha between which samples are made
REACH = 2.5


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  law: Literal["moons", "ring", "grid"] = "moons"
  recipe: Literal["edm", "flow-matching", "ddpm"] = "edm"
  steps: int = 6000
  batch_size: int = 512
  num_points: int = 50_000  # of the training split; the others have 5,000
  width: int = 128  # of the network's layers
  blocks: int = 3
  learning_rate: float = 2e-3  # of Adam, falling to nothing along a cosine
  decay: float = 0.999  # of the average of the parameters
  log_every: int = 500
  save_every: int = 2000
  sample_every: int = 0
  num_samples: int = 1000

  LEAST = base.Run.LEAST | {"num_points": 1, "width": 1, "blocks": 1}


def recipe(config: Config) -> recipes.Recipe:
  return {
    "edm": recipes.edm(data_std=1.0, mean=-1.0, std=1.6),
    "flow-matching": recipes.flow_matching(),
    "ddpm": recipes.ddpm(noise.cosine()),
  }[config.recipe]


def network(config: Config) -> PointMLP:
  return PointMLP(config.width, config.blocks)


def grid(num_steps: int) -> np.ndarray:
  return grids.karras(num_steps, LEAST, LARGEST)


def model(config: Config):
  optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
  sampler = diffusion.Sampler(multistep.DPMpp(2)(grid(40)))
  points = dict(image_shape=(1, 1, 2), read=jnp.asarray, write=lambda x: x)
  return diffusion.diffusion(network(config), optimizer, recipe(config), sampler, **points, decay=config.decay)


def module(config: Config) -> diffusion.Denoiser:
  return diffusion.Denoiser(network(config), recipe(config).parameterization)


def data(config: Config):
  return laws.splits(LAWS[config.law], config.num_points, ("train",)) | laws.splits(LAWS[config.law], 5000, ("test",))


def measure(config: Config):
  scores = likelihood.measure(module(config), num_steps=64, num_probes=None)

  def evaluate(key, state, batch):
    found = scores(key, state, batch)
    kept = {name: found[name] for name in ("nll", "nll_error", "nll_bound")}
    return {**kept, "gap": batch["true_log_prob"] + found["nll"]}

  return evaluate


def editor(config: Config) -> Editor:
  return Editor(lambda state: diffusion.denoiser(module(config), state), grid, read=jnp.asarray, write=lambda x: x)


def pictures(config: Config, state) -> dict:
  """As many samples as points of the data beside them, 2,000."""
  from experiments import plots

  drawn = np.asarray(model(config).sample(random.stream(0, random.SAMPLE), state, 2000))
  made, axes = plots.figure(columns=2)
  for panel, title, points in zip(axes[0], ("data", "samples"), (data(config)["test"].arrays["image"][:2000], drawn)):
    panel.scatter(*points.reshape(-1, 2).T, s=1, color="black")
    panel.set(title=title, xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
  return {"points": plots.to_array(made)}
