"""Random walks along the score, grad log p(x) = (alpha D - x) / sigma^2: reverse SDEs and Langevin dynamics.

The first two are tables as in solvers.py.  The others are loops of their own, since what they do depends on more than the guess
of the image: on lengths of vectors, or on a variance that the network gives.

  Song and Ermon 2019, "Generative modeling by estimating gradients of the data distribution"; https://arxiv.org/abs/1907.05600
  Song et al. 2021, "Score-based generative modeling through stochastic differential equations"; https://arxiv.org/abs/2011.13456
  Nichol and Dhariwal 2021, "Improved denoising diffusion probabilistic models"; https://arxiv.org/abs/2102.09672
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.score import grids
from gm_jax.score.noise import alpha, like, sigma
from gm_jax.score.solvers import Ancestral, Method, added, multistep, posterior, small


@dataclass(frozen=True)
class EulerMaruyama:
  """Euler and Maruyama's steps of the reverse SDE (Song et al. 2021, equation 6), variance preserving.

  What a schedule calls the integral of beta over a step is the change of log alpha^2, so a grid is all that is needed.  A step
  to the image (+inf) ends on the last guess.  The grid starts above -inf, from where that integral is infinite.
  """

  def __call__(self, grid) -> Method:
    grid = _above_nothing(grid, "the reverse SDE")
    t, s = grid[:-1], grid[1:]
    way = np.logaddexp(0, -t) - np.logaddexp(0, -s)
    pull = way / sigma(t) ** 2
    inner = s < np.inf
    guess = np.where(inner, pull * alpha(t), 1.0)
    return multistep(grid, np.where(inner, 1 + way / 2 - pull, 0.0), guess[:, None], np.where(inner, np.sqrt(way), 0.0))


@dataclass(frozen=True)
class AnnealedLangevin:
  """Song and Ermon 2019, Algorithm 1: some Langevin steps at every noise level of the grid, the last one included.

  A grid that ends in +inf ends on one more guess instead, at the level before.  The grid starts above -inf: from level to level
  x / alpha stays as it is.

  Attributes:
    steps_per_level: T of the paper.
    step_size: the first alpha_i over sigma_i^2, the same at all levels: 0.2 in the paper (2e-5 over 0.01^2).
  """

  steps_per_level: int = 100
  step_size: float = 0.2

  def __post_init__(self):
    if self.steps_per_level < 1 or not 0 < self.step_size < 4:  # from 4 on, the walk of a single point diverges
      raise UserError(f"Langevin dynamics wants one step or more, of a size between 0 and 4; got {self}")

  def __call__(self, grid) -> Method:
    grid = _above_nothing(grid, "annealed Langevin dynamics")
    levels = grid[grid < np.inf]
    at = np.repeat(levels, self.steps_per_level)
    scale = alpha(np.append(at[1:], at[-1])) / alpha(at)
    keep, guess, noise = 1 - self.step_size / 2, self.step_size / 2 * alpha(at), np.sqrt(self.step_size) * sigma(at)
    keep, guess, noise = keep * scale, guess * scale, noise * scale
    if grid[-1] == np.inf:
      at, keep, guess, noise = np.append(at, at[-1]), np.append(keep, 0.0), np.append(guess, 1.0), np.append(noise, 0.0)
    return multistep(np.append(at, grid[-1]), keep, guess[:, None], noise)


ANCESTRAL = Ancestral()


def predictor_corrector(
  denoise: Callable, grid, x, key, *, snr: float = 0.16, corrector_steps: int = 1, predictor: Callable = ANCESTRAL
):
  """At each level Langevin steps, whose size depends on x, then a solver's step to the next (Song et al. 2021, Algorithm 1).

  Their norms are means over the batch; here each example has its own, so that it depends on the key and its index alone.

  Args:
    denoise: `(x [B, ...], log_snr []) -> x_0 [B, ...]`.
    grid: log SNR [N + 1], from -inf if the predictor allows it.
    x: where to start, [B, ...].
    key: of all noise.
    snr: r of their Algorithm 4, the length of a step over that of its noise.
    corrector_steps: at each level; there are N (1 + corrector_steps) evaluations.
    predictor: a solver that remembers nothing.

  Returns:
    x_0 [B, ...].
  """
  method = predictor(grid)
  if method.noise.shape[1] != 1:
    raise UserError(f"a corrector moves x, and {predictor} remembers where it was: take one without memory, as Ancestral()")

  def step(x, row):
    index, log_snr, weights, noise = row
    step_key = jax.random.fold_in(key, index)
    correct = lambda i, x: _corrected(denoise, x, log_snr, snr, jax.random.fold_in(step_key, i))
    x = jax.lax.fori_loop(0, corrector_steps, correct, x)
    z = random.normal(jax.random.fold_in(step_key, corrector_steps), len(x), x.shape[1:])
    return weights[0, 0] * x + weights[0, 1] * denoise(x, log_snr) + noise[0] * z, None

  return jax.lax.scan(step, x, _rows(method.log_snr, method.weights, method.noise))[0]


class PredictorCorrector(NamedTuple):
  """`predictor_corrector` from nothing but noise, where a `diffusion.Sampler` is wanted.

  Attributes:
    grid, snr, corrector_steps, predictor: see there.
    guidance: functions denoiser -> denoiser, the first applied first.
  """

  grid: np.ndarray
  guidance: Sequence[Callable] = ()
  snr: float = 0.16
  corrector_steps: int = 1
  predictor: Callable = ANCESTRAL

  @property
  def method(self) -> Method:
    """The predictor's own."""
    return self.predictor(self.grid)

  def __call__(self, denoise: Callable, key, num: int, shape, label=None):
    """x_0 [num, *shape], float32; row i by the key and i alone."""
    start_key, steps_key = jax.random.split(key)
    for transform in self.guidance:
      denoise = transform(denoise)
    told = lambda x, log_snr: denoise(x, log_snr, label)
    how = dict(snr=self.snr, corrector_steps=self.corrector_steps, predictor=self.predictor)
    return predictor_corrector(told, self.grid, random.normal(start_key, num, shape), steps_key, **how)


def learned_ancestral(denoise: Callable, grid, x, key):
  """DDPM's Algorithm 2 with a learned variance: log variance = v log(large) + (1 - v) log(small) (Nichol and Dhariwal, eq. 15).

  Args:
    denoise: `(x [B, ...], log_snr []) -> x_0 [B, ...], v [B, ...]`, v between 0 and 1.
    grid: log SNR [N + 1], also from -inf.  A step to the image (+inf) adds no noise.
    x: where to start, [B, ...].
    key: of all noise.

  Returns:
    x_0 [B, ...].
  """
  grid = grids.checked(grid)
  t, s = grid[:-1], grid[1:]
  kept, guessed = posterior(t, s)
  inner = s < np.inf
  least = np.log(np.where(inner, small(t, s), 1.0)) / 2
  wider = np.log(added(t, s)) / 2 - least

  def step(x, row):
    index, log_snr, kept, guessed, least, wider, inner = row
    guess, v = denoise(x, log_snr)
    z = random.normal(jax.random.fold_in(key, index), len(x), x.shape[1:])
    return kept * x + guessed * guess + inner * jnp.exp(least + wider * v) * z, None

  return jax.lax.scan(step, x, _rows(t, kept, guessed, least, wider, inner))[0]


def _corrected(denoise, x, log_snr, snr, key):
  """A Langevin step at one level, Algorithm 4: x + e score + sqrt(2 e) z with e = 2 (snr |z| / |score|)^2."""
  a, b = like(alpha(log_snr), x), like(sigma(log_snr), x)
  z = random.normal(key, len(x), x.shape[1:])
  eps = (x - a * denoise(x, log_snr)) / b  # -sigma times the score
  size = like(2 * (snr * _length(z) / _length(eps)) ** 2, x)  # e / sigma^2, for each example
  return x + b * (jnp.sqrt(2 * size) * z - size * eps)


def _length(x):
  """Of each example, [B]."""
  return jnp.sqrt(jnp.square(x).reshape(len(x), -1).sum(1))


def _rows(*tables):
  """What a scan goes through: the index, and tables in float32."""
  return (jnp.arange(len(tables[0])), *(jnp.asarray(table, jnp.float32) for table in tables))


def _above_nothing(grid, name: str):
  grid = grids.checked(grid)
  if grid[0] == -np.inf:
    raise UserError(f"{name} divides by how much is left of the image: take a grid that starts above -inf")
  return grid
