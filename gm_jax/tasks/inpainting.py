"""Inpainting and outpainting: what is known of an image stays, and a denoiser draws the rest to fit.

The model need not have been trained for it: at every level of noise the known part is put in at that level, and the denoiser
sees a whole image.  That alone would let the two parts disagree; RePaint goes back and forth until they do not.

  Lugmayr et al. 2022, "RePaint: inpainting using denoising diffusion probabilistic models", https://arxiv.org/abs/2201.09865

Functions of a denoiser and x_0, as those of editing.py.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.score import grids, noise, solvers
from gm_jax.tasks.editing import ANCESTRAL, told


def walk(num_steps: int, jump: int, resamples: int) -> list[int]:
  """RePaint's way from noise, 0, to the image, `num_steps`, in steps of one (Lugmayr et al. 2022, section 4.2, appendix B).

  After every `jump` steps, counted back from the finest noise, these are undone and taken again, `resamples` - 1 times.
  """
  if jump < 1 or resamples < 1:
    raise UserError(f"RePaint jumps back 1 step or more, and resamples once or more; got {jump} and {resamples}")
  if resamples > 1 and jump >= num_steps:
    raise UserError(f"a jump of {jump} steps does not fit into {num_steps}: take more steps or shorter jumps")
  visited = [0]
  for step in range(1, num_steps + 1):
    visited.append(step)
    if jump <= step < num_steps and (num_steps - 1 - step) % jump == 0:
      again = [*range(step - 1, step - jump - 1, -1), *range(step - jump + 1, step + 1)]
      visited += again * (resamples - 1)
  return visited


class Plan(NamedTuple):
  """A walk as numbers, float64 [M] for M guesses.

  Attributes:
    back, renewed: x <- back x + renewed z first, where the walk has gone back: all of its steps in one, q(x_t | x_s).
    log_snr: of the guess.
    kept, guessed, new: x <- kept x + guessed D + new z.
    after: log SNR then.
  """

  back: np.ndarray
  renewed: np.ndarray
  log_snr: np.ndarray
  kept: np.ndarray
  guessed: np.ndarray
  new: np.ndarray
  after: np.ndarray


def plan(visited: Sequence[int], grid, solver: Callable) -> Plan:
  """What a walk over the levels of a grid does, by the steps of a solver that remembers nothing but where it stands."""
  grid, method = grids.checked(grid), solver(grid)
  if method.noise.shape != (len(grid) - 1, 1):
    raise UserError(f"a walk that goes back wants a solver of one guess for each step, such as Ancestral or DDIM; not {solver}")
  before, starts, stands = [], [], visited[0]
  for here, there in itertools.pairwise(visited):
    if there > here:
      before.append(stands)
      starts.append(here)
      stands = there
  s, t = grid[before], grid[starts]
  with np.errstate(invalid="ignore"):  # from -inf to itself
    back = np.where(s > t, noise.alpha(t) / noise.alpha(s), 1.0)
    renewed = np.where(s > t, np.sqrt(np.maximum(solvers.added(t, s), 0)), 0.0)
  (kept, guessed), new = method.weights[starts, 0].T, method.noise[starts, 0]
  return Plan(back, renewed, method.log_snr[starts], kept, guessed, new, grid[np.add(starts, 1)])


def inpaint(
  denoise: Callable,
  x_0,
  known,
  key,
  *,
  grid,
  jump: int = 10,
  resamples: int = 10,
  solver: Callable = ANCESTRAL,
  label=None,
):
  """RePaint (Lugmayr et al. 2022): the unknown part is denoised, the known one noised to the same level, at every step.

  That alone (`resamples` 1) makes the unknown part fit what is known too little; going back some steps and taking them again
  lets the two agree, the more often the better.

  Args:
    denoise: the denoiser.
    x_0: [B, H, W, C]; what is not known of it is not looked at.
    known: bool [H, W], the same for all, or [B, H, W, C].
    key: of all noise.
    grid: log SNR.
    jump, resamples: see `walk`.
    solver: of one guess for each step: Ancestral or DDIM.
    label: int32 [B] or None.

  Returns:
    [B, H, W, C]; what is known is that of x_0, exactly.
  """
  grid = grids.checked(grid)
  table = plan(walk(len(grid) - 1, jump, resamples), grid, solver)
  known = jnp.broadcast_to(known[None, :, :, None] if np.ndim(known) == 2 else known, x_0.shape)
  fresh = lambda key, index: random.normal(jax.random.fold_in(key, index), len(x_0), x_0.shape[1:])
  back_key, steps_key = jax.random.split(key)
  tell = told(denoise, label)
  jumps = bool(table.renewed.any())

  def step(x, row):
    index, row = row
    if jumps:
      x = row.back * x + row.renewed * fresh(back_key, index)
    z = fresh(steps_key, index)  # one for both parts, which share no pixel
    x = row.kept * x + row.guessed * tell(x, row.log_snr) + row.new * z
    return jnp.where(known, noise.diffuse(x_0, row.after, z), x), None

  z = fresh(steps_key, len(table.log_snr))
  x = jnp.where(known, noise.diffuse(x_0, grid[0], z), z)
  rows = jnp.arange(len(table.log_snr)), Plan(*(jnp.asarray(column, jnp.float32) for column in table))
  x, _ = jax.lax.scan(step, x, rows)
  return jnp.where(known, x_0, x)


def outpaint(denoise: Callable, x_0, key, *, margins: tuple[int, int, int, int], grid, **options):
  """Images continued beyond their edges, by a model of images of their own size.

  The model sees a window of that size, which moves outwards from the image over a larger canvas, half its side at a time, the
  nearest places first.  What the window shows of the canvas already, the image or what was drawn before, is known, at least
  about half of it; the rest is inpainted and stays.  So windows that do not overlap know of each other only through what lies
  between, and the model must be at home in pieces of images, not only in whole ones.

  Args:
    denoise: the denoiser.
    x_0: [B, H, W, C].
    key: of all noise.
    margins: pixels to add at the top, the bottom, the left and the right.
    grid, options: as `inpaint` has them.

  Returns:
    [B, H + top + bottom, W + left + right, C], the image exactly in its place.
  """
  if min(margins) < 0:
    raise UserError(f"margins are 0 pixels or more; got {margins}")
  top, bottom, left, right = margins
  batch, height, width, channels = x_0.shape
  known = np.zeros((height + top + bottom, width + left + right), bool)
  known[top : top + height, left : left + width] = True
  canvas = jnp.pad(x_0, ((0, 0), (top, bottom), (left, right), (0, 0)))
  places, masks = windows((height, width), margins), []
  for row, column in places:
    view = known[row : row + height, column : column + width]
    masks.append(view.copy())
    view[:] = True
  if not places:
    return canvas

  def draw(canvas, window):
    index, (row, column), mask = window
    at = (0, row, column, 0)
    piece = jax.lax.dynamic_slice(canvas, at, x_0.shape)
    piece = inpaint(denoise, piece, mask, jax.random.fold_in(key, index), grid=grid, **options)
    return jax.lax.dynamic_update_slice(canvas, piece, at), None

  order = jnp.arange(len(places)), tuple(jnp.asarray(places).T), jnp.asarray(np.stack(masks))
  return jax.lax.scan(draw, canvas, order)[0]


def windows(size: tuple[int, int], margins: tuple[int, int, int, int]) -> list[tuple[int, int]]:
  """Where the window stands, in order: (row, column) of its corner on the canvas; together they cover it."""
  rows, columns = _along(size[0], *margins[:2]), _along(size[1], *margins[2:])
  order = sorted((down + across, row, column) for down, row in rows for across, column in columns)
  return [(row, column) for distance, row, column in order if distance]


def _along(length: int, before: int, after: int) -> list[tuple[int, int]]:
  """(steps from the image, offset) along one axis."""
  half = max(1, length // 2)
  back = [(step, max(before - step * half, 0)) for step in range(1, -(-before // half) + 1)]
  forth = [(step, before + min(step * half, after)) for step in range(1, -(-after // half) + 1)]
  return [(0, before), *back, *forth]
