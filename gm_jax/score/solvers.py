"""Ways from noise to an image, written out as numbers: every solver is a table, and one loop follows them all.

A solver keeps a few numbers per pixel in mind: where it stands, where it has been, what it was told.  For each guess that it
asks for, all it does is to mix these and the new guess by fixed weights, and to add noise:

    slots  <-  weights @ (slots, D(slots[0], log_snr))  +  noise z,        z ~ N(0, I)

What numerical analysis calls a general linear method (Butcher 1966).  The weights depend on the grid alone: they are worked out
here in float64, on the host, where each solver is one function of the grid that can be checked without any network.  The answer
is slots[0] after the last row, and the number of rows is the number of network evaluations.

Below, t and s are log SNR as well: a step goes from t to s > t, from x_t to x_s; eps = (x - alpha D) / sigma is the guess of
the noise.  A grid that ends in +inf ends on the last guess.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.score import grids
from gm_jax.score.noise import alpha, from_ratio, ratio, sigma


class Method(NamedTuple):
  """A solver on a grid, float64; S slots, of which the first is where the next guess is asked for.

  Attributes:
    log_snr: [N], of each guess; the first is where the noise starts.
    weights: [N, S, S + 1], for the slots and the new guess, which is the last column.
    noise: [N, S].
  """

  log_snr: np.ndarray
  weights: np.ndarray
  noise: np.ndarray

  @property
  def num_evaluations(self) -> int:
    return len(self.log_snr)


def follow(denoise: Callable, method: Method, x, key, *, num_frames: int = 0):
  """Take all steps of a method.

  Args:
    denoise: `(x [B, ...], log_snr []) -> x_0 [B, ...]`.
    method: what a solver makes of a grid.
    x: where to start, at `method.log_snr[0]`: [B, ...]; standard normal for samples.
    key: of the noise of all steps.
    num_frames: how many of the guesses to keep, evenly spread, the last one included.

  Returns:
    x_0 [B, ...], or with `num_frames` also the guesses [num_frames, B, ...], in memory of that size.
  """
  count, num_slots = method.noise.shape
  if not 0 <= num_frames <= count:
    raise UserError(f"{num_frames} frames of {count} evaluations; take 0 to {count}")
  noisy = method.noise.any(0)
  frame = np.full(count, -1)
  if num_frames:
    frame[np.linspace(0, count - 1, num_frames + 1).round().astype(int)[1:] if num_frames < count else np.arange(count)] = (
      np.arange(num_frames)
    )

  def step(carry, row):
    slots, frames = carry
    index, log_snr, weights, noise, at = row
    guess = denoise(slots[0], log_snr)
    if noisy.any():
      z = random.normal(jax.random.fold_in(key, index), len(x), x.shape[1:])
    known = (*slots, guess)
    mixed = [sum(weights[i, j] * known[j] for j in np.flatnonzero(used[i])) for i in range(num_slots)]
    slots = tuple(value + noise[i] * z if noisy[i] else value for i, value in enumerate(mixed))
    if num_frames:
      frames = jax.lax.cond(at >= 0, lambda f: jax.lax.dynamic_update_index_in_dim(f, guess, at, 0), lambda f: f, frames)
    return (slots, frames), None

  used = method.weights.any(0)  # what no row uses is not even multiplied
  used[np.arange(num_slots), np.arange(num_slots)] |= ~used.any(1)
  numbers = (jnp.asarray(array, jnp.float32) for array in (method.log_snr, method.weights, method.noise))
  rows = (jnp.arange(count), *numbers, jnp.asarray(frame))
  slots = (x, *(jnp.zeros_like(x) for _ in range(num_slots - 1)))
  frames = jnp.zeros((num_frames, *x.shape), x.dtype)
  (slots, frames), _ = jax.lax.scan(step, (slots, frames), rows)
  return (slots[0], frames) if num_frames else slots[0]


def multistep(grid, keep, guesses, noise=None) -> Method:
  """x_s = keep x_t + guesses[0] D_t + guesses[1] D of the step before + ... + noise z.

  Args:
    grid: log SNR [N + 1].
    keep: [N].
    guesses: [N, K].
    noise: [N]; none if left out.
  """
  count, memory = guesses.shape
  weights, added = np.zeros((count, memory, memory + 1)), np.zeros((count, memory))
  weights[:, 0, 0], weights[:, 0, -1], weights[:, 0, 1:-1] = keep, guesses[:, 0], guesses[:, 1:]
  for slot in range(1, memory):  # the new guess is remembered first, and the older ones move on
    weights[:, slot, -1 if slot == 1 else slot - 1] = 1
  added[:, 0] = 0 if noise is None else noise
  return Method(grid[:-1], weights, added)


@dataclass(frozen=True)
class DDIM:
  """Song, Meng and Ermon 2021, equations 12 and 16: guess x_0, put back as much noise as x_s should have, eta of it new.

  With eta = 0 it is Euler's method for the probability flow in any gauge, and DPM-Solver++ of first order.
  """

  eta: float = 0.0

  def __post_init__(self):
    if not 0 <= self.eta <= 1:
      raise UserError(f"DDIM's eta is between 0 and 1, not {self.eta}")

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    t, s = grid[:-1], grid[1:]
    new = self.eta * np.sqrt(small(t, s))
    old = np.sqrt(np.maximum(sigma(s) ** 2 - new**2, 0)) / sigma(t)
    return multistep(grid, old, (alpha(s) - alpha(t) * old)[:, None], new)


@dataclass(frozen=True)
class Ancestral:
  """DDPM's Algorithm 2: the Gaussian q(x_s | x_t, x_0) at the guessed x_0, with a variance of one's choice.

  Attributes:
    variance: "small", right if the data are one point; "large", right if they are N(0, 1); "optimal", right for data of
      variance `data_variance` (Bao et al. 2022: the variance that all of it has in common).
    data_variance: per pixel.
  """

  variance: Literal["small", "large", "optimal"] = "small"
  data_variance: float = 1.0

  def __post_init__(self):
    if self.variance not in ("small", "large", "optimal"):
      raise UserError(f"a variance is small, large or optimal, not {self.variance!r}")

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    t, s = grid[:-1], grid[1:]
    kept, guessed = posterior(t, s)
    if self.variance == "large":
      variance = added(t, s)
    else:
      variance = small(t, s)
    if self.variance == "optimal":
      unknown = self.data_variance / (1 + self.data_variance * np.exp(t))  # the variance of x_0 given x_t
      variance = variance + guessed**2 * unknown
    # No noise on the way to the image itself: what is left of it is taken out and not renewed.
    return multistep(grid, kept, guessed[:, None], np.where(s < np.inf, np.sqrt(variance), 0.0))


@dataclass(frozen=True)
class Heun:
  """Heun's method for dy / ds = (y - D) / s in y = x / alpha, s = sigma / alpha, with new noise on the way.

  Karras et al. 2022, algorithm 2; two guesses for each step, one for a step to the image.

  Attributes:
    churn: of noise in all, over the steps; 0: the method is deterministic.
    least, most: the noise levels between which there is churn.
    inflation: of the new noise's deviation.
  """

  churn: float = 0.0
  least: float = 0.0
  most: float = np.inf
  inflation: float = 1.0

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    if grid[0] == -np.inf:
      raise UserError("Heun's method divides by how much is left of the image: take a grid that starts above -inf")
    levels = ratio(grid)
    gain = np.where((levels >= self.least) & (levels <= self.most), min(self.churn / (len(grid) - 1), np.sqrt(2) - 1), 0.0)
    gain[-1] = 0.0  # where the last step ends, none starts
    raised = levels * (1 + gain)  # where each step really starts
    fresh = self.inflation * np.sqrt(raised**2 - levels**2)
    at, weights, noise = [], [], []
    for index, (start, end) in enumerate(zip(raised[:-1], levels[1:])):
      a, b, way = alpha(from_ratio(start)), alpha(from_ratio(end)), end - start
      again = alpha(from_ratio(raised[index + 1]))  # y of the next step's start, and its noise, in units of x
      # Slots: x, y, and the slope d = (y - D) / s.
      slope = np.array([1 / (a * start), 0, 0, -1 / start])
      y = np.array([1 / a, 0, 0, 0])
      at.append(from_ratio(start))
      if end == 0:
        weights.append([y + way * slope, y, slope])
        noise.append([0, 0, 0])
        continue
      weights.append([b * (y + way * slope), y, slope])
      noise.append([0, 0, 0])
      y, before, second = np.eye(4)[1], np.eye(4)[2], np.array([1 / (b * end), 0, 0, -1 / end])
      at.append(from_ratio(end))
      weights.append([again * (y + way * (before + second) / 2), y, before])
      noise.append([again * fresh[index + 1], 0, 0])
    return Method(np.array(at), np.array(weights), np.array(noise))


# What a step from l to m does to the noise.


def added(t, s):
  """The variance of q(x_t | x_s), of the noise that comes in on the way from s to the noisier t: DDPM's beta."""
  return -np.expm1(np.logaddexp(0, -s) - np.logaddexp(0, -t))


def small(t, s):
  """The variance of q(x_s | x_t, x_0), DDPM equation 7."""
  return (sigma(s) / sigma(t)) ** 2 * added(t, s)


def posterior(t, s):
  """The mean of q(x_s | x_t, x_0) as weights of x_t and x_0, DDPM equation 7."""
  return alpha(t) / alpha(s) * (sigma(s) / sigma(t)) ** 2, alpha(s) * added(t, s) / sigma(t) ** 2
