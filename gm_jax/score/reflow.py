"""Reflow: flow matching once more, on noise and images that belong together, for straighter ways between them.

In rectified flow's unit, y = x / (alpha + sigma) = (1 - t) x_0 + t eps, a flow follows the velocity E[eps - x_0 | y].  Where
lines between noise and images cross, that is a mean of many directions, and ways bend.  But the flow itself makes of each noise
one image.  Trained again on these couples, it has the same law at every t, costs no more for any convex cost, and its ways
cross less (Liu et al. 2023, "Flow straight and fast"; https://arxiv.org/abs/2209.03003).  On a
straight way one step of Euler's method is exact.

Couples are made in each step of training by the teacher's flow, so no data set of them has to be kept; `matching` also takes
those that were made before.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import Collections, GenerativeModel
from gm_jax.errors import UserError
from gm_jax.score import grids, levels, noise, recipes, solvers, weights
from gm_jax.score.diffusion import Denoiser, Sampler, hidden
from gm_jax.score.distillation import Teacher, check_start, distillation
from gm_jax.score.solvers import Method


def couple(denoise: Callable, method: Method, eps, label=None):
  """The images x_0 [B, ...] that a flow makes of noise eps [B, ...]; `method` is a solver that adds no noise, on a grid."""
  if method.noise.any():
    raise UserError("a solver that adds noise couples nothing: take DDIM, Heun, DPMpp or another that follows the flow")
  return solvers.follow(lambda x, log_snr: denoise(x, log_snr, label), method, eps, None)


def matching(recipe: recipes.Recipe):
  """The objective on couples {"image": x_0, "noise": eps [B, ...], perhaps "label"}: weight(log_snr) |D - x_0|^2 per dimension.

  That is `diffusion.denoising` but for the noise, which is the image's own.  For a data set of couples (Liu et al. have one):

      from_objective(Denoiser(network, recipe.parameterization), matching(recipe), sample, optimizer, reports="denoising")
  """

  def objective(model: Denoiser, key, batch, train: bool):
    x_0, eps = batch["image"], batch["noise"]
    log_snr = recipe.levels.sample(key, len(x_0))
    x, chosen = noise.diffuse(x_0, log_snr, eps), model.parameterization
    error = jnp.square(model.output(x, log_snr, batch.get("label"), train) - chosen.target(x_0, eps, log_snr))
    error = jnp.square(chosen.out(log_snr)) * error.reshape(len(x_0), -1).mean(1)  # of the image, [B]
    return recipe.weight(log_snr) * error, {"image_error": error}

  return objective


def reflow(
  module: Denoiser,
  teacher: Collections,
  optimizer: optax.GradientTransformation,
  method: Method,
  sampler: Sampler,
  *,
  image_shape: tuple[int, ...],
  schedule: noise.Schedule | None = None,
  rounds: int = 1,
  round_steps: int = 0,
  guidance: Sequence[Callable] = (),
  label_dropout: float = 0.1,
  write: Callable = images.from_symmetric,
  decay: float = 0.999,
) -> GenerativeModel:
  """A flow straightened; `evaluate` reports "denoising", the squared error of the velocity per dimension on couples.

  Of the data it sees the labels and how many there are, never an image.

  Args:
    module, teacher, optimizer, rounds, round_steps, guidance, decay: see `distillation.distillation`.  Any parameterization
      does, `flow` best.  The student of round k is the (k + 1)-rectified flow if the teacher was trained by flow matching.
    method: what makes couples: a solver that adds no noise, on a grid.
    sampler: what `sample` does.
    image_shape: (H, W, C).
    schedule: training visits its times evenly; `noise.straight()` if None.
    label_dropout: the share of examples whose label is hidden, of teacher and student alike.
    write: from x_0 to images.
  """
  chosen = levels.evenly(schedule or noise.straight())
  match = matching(recipes.Recipe(module.parameterization, chosen, weights.flow))
  check_start(module.parameterization, method.log_snr[0])
  check_start(module.parameterization, sampler.method.log_snr[0])

  def lesson(student: Denoiser, key, teacher: Teacher, batch, train: bool):
    noise_key, label_key, match_key = jax.random.split(key, 3)
    label = hidden(label_key, batch.get("label"), label_dropout if train else 0.0, module.num_classes)
    eps = random.normal(noise_key, len(batch["image"]), image_shape)
    couples = {"image": couple(teacher.denoise, method, eps, label), "noise": eps, "label": label}
    return match(student, match_key, couples, train)

  def sample(denoise, key, num, condition, round_):
    del round_
    return write(sampler(denoise, key, num, image_shape, condition))

  told = dict(rounds=rounds, round_steps=round_steps, guidance=guidance, decay=decay)
  return distillation(module, teacher, lesson, sample, optimizer, **told)


def straightness(denoise: Callable, x, grid, label=None):
  """int |velocity - (end - start)|^2 dt per dimension along the ways from noise x [B, ...], [B]; 0: they are straight.

  Liu et al. 2023 (their S), the velocity in rectified flow's unit.  Ways are followed by Euler's method on a grid, and by
  nothing better, since a straight way is followed by it exactly; t is counted from the grid's start to its end as from 0 to 1.
  """
  grid = grids.checked(grid)
  total = noise.alpha(grid) + noise.sigma(grid)
  t = noise.sigma(grid) / total
  share = (np.diff(t) / (t[-1] - t[0])).astype(np.float32)  # of each step
  rows = (np.asarray(row, np.float32) for row in (grid[:-1], total[:-1], t[:-1], np.diff(t)))

  def step(y, row):
    log_snr, total, t, way = row
    velocity = (y - denoise(y * total, log_snr, label)) / t
    return y + way * velocity, velocity

  _, velocity = jax.lax.scan(step, x / np.float32(total[0]), tuple(map(jnp.asarray, rows)))  # [N, B, ...]
  velocity = velocity.reshape(*velocity.shape[:2], -1)
  mean = jnp.tensordot(share, velocity, 1)
  return jnp.tensordot(share, jnp.square(velocity - mean[None]).mean(-1), 1)
