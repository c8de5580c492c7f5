"""Progressive distillation: one step of the student lands where two of the teacher do, and the number of steps halves.

Salimans and Ho 2022, "Progressive distillation for fast sampling of diffusion models" (https://arxiv.org/abs/2202.00512),
Algorithm 2.  A step of DDIM from log SNR t to s > t mixes x and the guess D.  The teacher takes two, by m halfway,

    x_m = sigma_m / sigma_t x_t + (alpha_m - alpha_t sigma_m / sigma_t) D_t,      x_s likewise of x_m and D_m

and the student's guess is to be the one that leads from x_t to the same x_s at once.  Written out, x_t drops out of their
formula, and what is left is a mean of the teacher's two guesses:

    target = D_t + share (D_m - D_t),      share = (1 - e^((m - s) / 2)) / (1 - e^((t - s) / 2))
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import Collections, GenerativeModel
from gm_jax.errors import UserError
from gm_jax.score import grids, noise, solvers, weights
from gm_jax.score.diffusion import Denoiser, Sampler, hidden
from gm_jax.score.distillation import Teacher, check_start, distillation


class Pairs(NamedTuple):
  """Two steps of the teacher for each of the student's, float64 [N].

  Attributes:
    log_snr, middle: where the teacher guesses.
    keep, guessed: x at the middle = keep x + guessed D.
    share: of the second guess in the student's target.
  """

  log_snr: np.ndarray
  middle: np.ndarray
  keep: np.ndarray
  guessed: np.ndarray
  share: np.ndarray


def pairs(grid) -> Pairs:
  """The teacher's steps on log SNR [2 N + 1], two by two; it may start at -inf and end at +inf."""
  grid = grids.checked(grid)
  if len(grid) % 2 == 0:
    raise UserError(f"{len(grid) - 1} steps cannot be halved; take an even number")
  t, m, s = grid[:-1:2], grid[1::2], grid[2::2]
  keep = noise.sigma(m) / noise.sigma(t)
  share = np.expm1((m - s) / 2) / np.expm1((t - s) / 2)
  return Pairs(t, m, keep, noise.alpha(m) - noise.alpha(t) * keep, share)


def progressive(
  module: Denoiser,
  teacher: Collections,
  optimizer: optax.GradientTransformation,
  grid,
  *,
  image_shape: tuple[int, ...],
  rounds: int,
  round_steps: int,
  weight: Callable = weights.velocity,
  guidance: Sequence[Callable] = (),
  label_dropout: float = 0.1,
  read: Callable = images.to_symmetric,
  write: Callable = images.from_symmetric,
  decay: float = 0.999,
) -> GenerativeModel:
  """A sampler of few steps; `evaluate` reports "denoising", the weighted squared error of the student's guess per dimension.

  Samples are made in as many steps as the student of the round has: N / 2, N / 4, ...

  Args:
    module, teacher, optimizer, round_steps, guidance, decay: see `distillation.distillation`.  What the network is asked for
      should be well posed at all SNR: the image, v or the flow.
    grid: the first teacher's steps of DDIM: log SNR [N + 1], N divisible by 2^rounds.
    image_shape: (H, W, C).
    rounds: how often the number of steps halves.
    weight: log SNR -> what a squared error of the image costs: the paper's "SNR + 1" here.
    label_dropout: the share of examples whose label is hidden, of teacher and student alike.
    read, write: from a batch's images to x_0 and back.
  """
  grid = grids.checked(grid)
  num_steps = len(grid) - 1
  if rounds < 1 or num_steps % 2**rounds:
    raise UserError(f"{num_steps} steps cannot be halved {rounds} times; take a multiple of {2 ** max(rounds, 1)}")
  check_start(module.parameterization, grid[0])
  each = [pairs(grid[:: 2**done]) for done in range(rounds)]
  counts = np.array([len(table.log_snr) for table in each], np.int32)
  # [rounds, N / 2]: the rows of later rounds are shorter, and what is beyond them is never read.
  stacked = Pairs(*(np.stack([np.resize(row, counts[0]) for row in rows]).astype(np.float32) for rows in zip(*each)))
  samplers = [Sampler(solvers.DDIM()(grid[:: 2 ** (done + 1)])) for done in range(rounds)]

  def lesson(student: Denoiser, key, teacher: Teacher, batch, train: bool):
    step_key, noise_key, label_key = jax.random.split(key, 3)
    x_0 = read(batch["image"])
    label = hidden(label_key, batch.get("label"), label_dropout if train else 0.0, module.num_classes)
    count = jnp.asarray(counts)[teacher.round]
    index = jnp.minimum((random.evenly(step_key, len(x_0)) * count).astype(jnp.int32), count - 1)
    pair = Pairs(*(jnp.asarray(row)[teacher.round, index] for row in stacked))
    x = noise.diffuse(x_0, pair.log_snr, random.normal(noise_key, len(x_0), x_0.shape[1:]))
    target = landing(teacher.denoise, pair, x, label)
    error = jnp.square(student(x, pair.log_snr, label, train) - target).reshape(len(x_0), -1).mean(1)
    return weight(pair.log_snr) * error, {"image_error": error}

  def sample(denoise, key, num, condition, round_):
    draws = [lambda chosen=chosen: chosen(denoise, key, num, image_shape, condition) for chosen in samplers]
    return write(jax.lax.switch(round_, draws))

  told = dict(rounds=rounds, round_steps=round_steps, guidance=guidance, decay=decay)
  return distillation(module, teacher, lesson, sample, optimizer, **told)


def landing(denoise: Callable, pair: Pairs, x, label=None):
  """The guess by which one step of DDIM from x [B, ...] lands where two steps of `denoise` do, [B, ...]; `pair` is of [B]."""
  first = denoise(x, pair.log_snr, label)
  halfway = noise.like(pair.keep, x) * x + noise.like(pair.guessed, x) * first
  second = denoise(halfway, pair.middle, label)
  return first + noise.like(pair.share, x) * (second - first)
