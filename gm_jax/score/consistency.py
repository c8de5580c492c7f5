"""Consistency models: from anywhere on a way of the flow to its end, at once.

    f(x, log_snr)      the same at all points of a way,         f(x, log_snr at `least`) = x / alpha, the way's end

so f of noise is an image.  Two neighbours on a way are made to agree, the less noisy of them being the target:

    distillation       the neighbour is one step of a solver away, on the teacher's flow
    training           the neighbour is the same image with the same noise, less of it; no teacher is needed, since that way's
                       slope is on average the flow's

  Song et al. 2023, "Consistency models"; https://arxiv.org/abs/2303.01469
  Song and Dhariwal 2024, "Improved techniques for training consistency models"; https://arxiv.org/abs/2310.14189

f is a `Denoiser` like any other, but for what it is asked (`bounded`).  Which neighbours are compared: neighbours.py.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images
from gm_jax.core import Average, Collections, GenerativeModel, Trainable, begin, begin_average, descend, run, update_average
from gm_jax.errors import UserError
from gm_jax.score import grids, noise, solvers
from gm_jax.score.diffusion import Denoiser, Sampler, hidden
from gm_jax.score.distillation import applied, check_start, started, steered
from gm_jax.score.neighbours import lognormal, on_the_flow, with_the_same_noise
from gm_jax.score.noise import alpha, sigma
from gm_jax.score.parameterizations import Parameterization, karras
from gm_jax.score.solvers import Method

# The function.


def bounded(inner: Parameterization, least: float = 0.002) -> Parameterization:
  """f = (1 - r) D + r x / alpha with r = least / (sigma / alpha): x / alpha itself at the least noise, whatever F says.

  That is one step of DDIM from any level to the least, so a student starts as one step of its teacher.  Of Karras et al.'s
  parameterization, out is the c_out of Song et al. 2023, and skip their c_skip but for terms of the order of `least`.

  Args:
    inner: what D is made of.
    least: sigma / alpha at which ways end.
  """
  last = np.float32(noise.from_ratio(least))
  share = lambda log_snr: -jnp.expm1((log_snr - last) / 2)  # 1 - r: 0 at the end to the last bit
  skip = lambda log_snr: share(log_snr) * inner.skip(log_snr) + least / sigma(log_snr)
  out = lambda log_snr: share(log_snr) * inner.out(log_snr)
  of_noise = lambda log_snr: inner.of_noise(log_snr) - least / out(log_snr)
  return inner._replace(skip=skip, out=out, of_noise=of_noise)


def student(module: Denoiser, least: float = 0.002) -> Denoiser:
  """The consistency function on a denoiser's network."""
  return module.clone(parameterization=bounded(module.parameterization, least))


@dataclass(frozen=True)
class Multistep:
  """Samples of a consistency function: to the way's end, noise again up to the next level, to the end ... (Algorithm 1).

  A solver, for grids that end at +inf.  Of two levels it is one evaluation.

  Attributes:
    least: sigma / alpha of what the function gives; so much noise is in it already.
  """

  least: float = 0.002

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    s = grid[1:]
    new = np.sqrt(np.maximum(sigma(s) ** 2 - (alpha(s) * self.least) ** 2, 0))
    return solvers.multistep(grid, np.zeros(len(s)), alpha(s)[:, None], new)


# What disagreement costs.


def squared(a, b):
  """The squared difference per dimension, [B]."""
  return jnp.square(a - b).reshape(len(a), -1).mean(1)


def pseudo_huber(scale: float = 0.00054) -> Callable:
  """sqrt(|a - b|^2 + c^2) - c, c = scale sqrt(dimensions): a square if small, a length if large (Song and Dhariwal 2024)."""

  def distance(a, b):
    total = jnp.square(a - b).reshape(len(a), -1).sum(1)
    c = scale * math.sqrt(math.prod(a.shape[1:]))
    return total / (jnp.sqrt(total + c * c) + c)  # the same, with all its digits

  return distance


# The models.


class State(NamedTuple):
  """The function, its average, which `sample` and `evaluate` read, the one that sets the targets, and the teacher."""

  net: Trainable
  average: Average
  target: Collections
  teacher: Collections  # empty if there is none
  steps: jax.Array  # int32 []


def consistency_distillation(
  module: Denoiser,
  teacher: Collections,
  optimizer: optax.GradientTransformation,
  sampler: Sampler,
  *,
  image_shape: tuple[int, ...],
  grid=None,
  solver: Callable | None = None,
  distance: Callable | None = None,
  target_decay: float = 0.95,
  guidance: Sequence[Callable] = (),
  **options,
) -> GenerativeModel:
  """Song et al. 2023, Algorithm 2; `evaluate` reports "denoising", by how much neighbours disagree.

  Args:
    module: the teacher; the function is `student(module, least)`.
    teacher: its variables: `state.average.variables` of a model that diffusion.py made of the same parts.
    optimizer: any optax transformation.
    sampler: what `sample` does: `Multistep` on a grid.
    image_shape: (H, W, C).
    grid: log SNR of the levels, rising; `grids.karras(17, last=None)`, 18 levels down to 0.002, if None.  Ways end at the last.
    solver: DDIM or Heun, which it is if None.
    distance: `pseudo_huber()` if None.
    target_decay: what the targets keep of themselves at each step.
    guidance: functions denoiser -> denoiser, what the teacher is sampled with.
    **options: label_dropout, read, write and decay, as `diffusion.diffusion` has them.
  """
  grid = grids.karras(17, last=None) if grid is None else grids.checked(grid)
  if not np.all(np.isfinite(grid)):
    raise UserError(f"the levels of a consistency model are finite; got {grid[0]} to {grid[-1]}")
  chosen = student(module, noise.ratio(grid[-1]).item())
  neighbours = on_the_flow(solver or solvers.Heun(), grid)

  def first(key, batch):
    del key, batch
    return started(teacher, optimizer), jax.tree.map(jnp.array, teacher)

  teaching = lambda variables: steered(applied(module, variables), guidance)
  told = dict(image_shape=image_shape, target_decay=target_decay, **options)
  return _model(chosen, first, teaching, neighbours, distance or pseudo_huber(), optimizer, sampler, **told)


def consistency_training(
  network: nn.Module,
  optimizer: optax.GradientTransformation,
  sampler: Sampler,
  *,
  image_shape: tuple[int, ...],
  num_levels: Callable,
  inner: Parameterization | None = None,
  least: float = 0.002,
  largest: float = 80.0,
  clock: Callable | None = None,
  distance: Callable | None = None,
  num_classes: int = 0,
  **options,
) -> GenerativeModel:
  """Song and Dhariwal 2024: without a teacher; the targets are the function itself, not an average of it.

  Args:
    network: see `diffusion.Denoiser`.
    optimizer, sampler, image_shape, distance, options: see `consistency_distillation`.
    num_levels: steps taken -> how many levels: `doubling(total)`.
    inner: what the network is asked for, before it is `bounded`; Karras et al.'s if None.
    least, largest: sigma / alpha between which the levels are, as `noise.karras` spreads them.
    clock: which neighbours are chosen how often; `lognormal` if None.
    num_classes: of the labels that the network is told; 0: none.
  """
  schedule = noise.karras(least, largest)
  module = Denoiser(network, bounded(inner or karras(), least), num_classes)
  neighbours = with_the_same_noise(schedule, num_levels, clock or lognormal(schedule))
  read = options.get("read", images.to_symmetric)

  def once(model, key, batch, train):
    x = read(batch["image"])
    return model(x, schedule.log_snr(jnp.ones(len(x))), batch.get("label"), train)

  def first(key, batch):
    return begin(module, once, optimizer, key, batch), {}

  told = dict(image_shape=image_shape, target_decay=0.0, **options)
  return _model(module, first, lambda variables: None, neighbours, distance or pseudo_huber(), optimizer, sampler, **told)


def _model(
  module: Denoiser,
  first: Callable,
  teaching: Callable,
  neighbours: Callable,
  distance: Callable,
  optimizer: optax.GradientTransformation,
  sampler: Sampler,
  *,
  image_shape: tuple[int, ...],
  target_decay: float,
  label_dropout: float = 0.1,
  read: Callable = images.to_symmetric,
  write: Callable = images.from_symmetric,
  decay: float = 0.999,
) -> GenerativeModel:
  """`first`: (key, batch) -> (player, the teacher's variables); `teaching`: these -> the denoiser that `neighbours` ask."""
  check_start(module.parameterization, sampler.method.log_snr[0])

  def objective(model: Denoiser, key, target, denoise, steps, batch, train: bool):
    pair_key, label_key, dropout_key = jax.random.split(key, 3)
    x_0 = read(batch["image"])
    label = hidden(label_key, batch.get("label"), label_dropout if train else 0.0, module.num_classes)
    pair = neighbours(pair_key, denoise, x_0, label, steps)
    # Both with one mask of dropout: they should disagree by nothing but what they were given.
    end = functools.partial(module.apply, label=label, train=train, rngs={"dropout": dropout_key})
    ours = end(model.variables, pair.x, pair.log_snr)
    theirs = jax.lax.stop_gradient(end(target, pair.cleaner, pair.cleaner_log_snr))
    return pair.weight * distance(ours, theirs), {"disagreement": squared(ours, theirs)}

  def init(key, batch):
    net, teacher = first(key, batch)
    return State(net, begin_average(net), jax.tree.map(jnp.array, net.variables), teacher, jnp.zeros((), jnp.int32))

  def step(key, state, batch):
    told = state.target, teaching(state.teacher), state.steps, batch
    net, metrics = descend(module, objective, optimizer, state.net, key, *told)
    target = optax.incremental_update(net.variables, state.target, 1 - target_decay)
    return State(net, update_average(state.average, net, decay), target, state.teacher, state.steps + 1), metrics

  def draw(key, state, num, condition=None):
    return write(sampler(applied(module, state.average.variables), key, num, image_shape, condition))

  def evaluate(key, state, batch):
    variables = state.average.variables
    told = variables, teaching(state.teacher), jnp.int32(2**30), batch  # at the levels of the end, whenever it is asked
    (losses, parts), _ = run(module, objective, variables, key, *told, train=False)
    return {"denoising": losses, **parts}

  return GenerativeModel(init, step, draw, evaluate)
