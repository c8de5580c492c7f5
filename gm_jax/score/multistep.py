"""Fast solvers: between two levels the flow is solved exactly for a polynomial through the last few guesses.

With lambda = log_snr / 2 = log(alpha / sigma), h the step in lambda and v in [0, 1] the way along it, the probability flow from
t to s is (Lu et al. 2022b, proposition 4.1)

    x_s = sigma_s / sigma_t x_t + alpha_s int_0^1 h e^(h (v - 1)) D(v) dv

and only D is not known in advance.  A constant in its place is DDIM; a polynomial through guesses that have been made already
is of higher order and costs no evaluation.  As `solvers` has it, t and s are log SNR and a step is a table's row.

  Lu et al. 2022b, "DPM-Solver++"; https://arxiv.org/abs/2211.01095
  Zhao et al. 2023, "UniPC: a unified predictor-corrector framework"; https://arxiv.org/abs/2302.04867
  Zhang and Chen 2023, "Fast sampling of diffusion models with exponential integrator" (iPNDM); https://arxiv.org/abs/2204.13902

The first steps have less to remember, and are of lower order.  So is a step to the image (+inf): it ends on the last guess.
Grids may start at -inf, nothing but noise: a guess from there, infinitely far back, bends no polynomial.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gm_jax.errors import UserError
from gm_jax.score import grids
from gm_jax.score.noise import alpha, ratio, sigma
from gm_jax.score.solvers import Method, multistep


@dataclass(frozen=True)
class DPMpp:
  """DPM-Solver++ with memory: 2M is the paper's Algorithm 2, 3M its Taylor expansion with one guess more; 1 is DDIM.

  Attributes:
    order: 1, 2 or 3: how many guesses make the polynomial.
    sde: whether the reverse SDE is solved and not the flow, with new noise at each step (section 6 of the paper); of order 1 it
      is ancestral sampling with the small variance.
  """

  order: int = 2
  sde: bool = False

  def __post_init__(self):
    _check(self.order, 3)

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    t, s = grid[:-1], grid[1:]
    if not self.sde:
      return multistep(grid, sigma(s) / sigma(t), _extrapolated(grid, self.order))
    keep, noise = sigma(s) / sigma(t) * np.exp((t - s) / 2), sigma(s) * np.sqrt(-np.expm1(t - s))
    return multistep(grid, keep, _extrapolated(grid, self.order, rate=2), noise)


@dataclass(frozen=True)
class UniPC:
  """Predict, guess, and correct the same step by that guess, which the next prediction needs anyway: no more evaluations.

  The guess is not made again at the corrected x.  A step from -inf is not corrected.

  Attributes:
    order: 1, 2 or 3, of the predictor; with the corrector it is one more.
    corrector: without it, UniPC of order 2 with "bh2" is DPM++ 2M, and of order 3 it is 3M.
    variant: the paper's B(h), h or 1 - e^-h; it matters where two guesses make the polynomial, and nowhere else.
  """

  order: int = 2
  corrector: bool = True
  variant: Literal["bh1", "bh2"] = "bh2"

  def __post_init__(self):
    _check(self.order, 3)
    if self.variant not in ("bh1", "bh2"):
      raise UserError(f"a variant of UniPC is bh1 or bh2, not {self.variant!r}")

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    t, s = grid[:-1], grid[1:]
    plain = self.variant == "bh1"
    keep, weights = sigma(s) / sigma(t), _extrapolated(grid, self.order, plain=plain)
    if not self.corrector:
      return multistep(grid, keep, weights)
    # Slots: x as predicted, x as corrected one step ago, and the guesses of the last steps.
    num_slots = 2 + self.order
    unit, rows = np.eye(num_slots + 1), []
    guesses = np.array([unit[-1], *unit[2:-1]])
    for i in range(len(t)):
      x = unit[0]
      if i and t[i - 1] > -np.inf:
        nodes = np.append(1.0, _nodes(grid, i - 1, self.order))
        mixed = _weights((t[i] - t[i - 1]) / 2, nodes, plain) @ guesses[: len(nodes)]
        x = keep[i - 1] * unit[1] + alpha(t[i]) * mixed
      rows.append([keep[i] * x + weights[i] @ guesses[:-1], x, *guesses[:-1]])
    return Method(t, np.array(rows), np.zeros((len(t), num_slots)))


@dataclass(frozen=True)
class IPNDM:
  """Adams and Bashforth's weights on guesses of the noise, the slope of x / alpha by sigma / alpha, whatever the step's length.

  On a grid whose sigma / alpha falls evenly it is of its full order, on other smooth grids of the second.

  Attributes:
    order: 1 to 4: how many guesses are mixed.
  """

  order: int = 4

  def __post_init__(self):
    _check(self.order, 4)

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    t, s = grid[:-1], grid[1:]
    # Slots: x, and the noise as guessed at the steps before.
    unit, rows = np.eye(self.order + 1), []
    for i in range(len(t)):
      eps = (unit[0] - alpha(t[i]) * unit[-1]) / sigma(t[i])
      known = np.array([eps, *unit[1:-1]])
      x = alpha(s[i]) * unit[-1] + sigma(s[i]) * eps  # DDIM, and by how much the slope differs from this guess
      count = min(self.order, i + 1)
      if count > 1 and s[i] < np.inf:
        bent = np.array(ADAMS_BASHFORTH[count - 1]) - np.eye(count)[0]
        x = x + alpha(s[i]) * (ratio(s[i]) - ratio(t[i])) * bent @ known[:count]
      rows.append([x, *known[:-1]])
    return Method(t, np.array(rows), np.zeros((len(t), self.order)))


ADAMS_BASHFORTH = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class DPMpp2S:
  """DPM-Solver++ without memory (Lu et al. 2022b, Algorithm 1 at r = 1/2): the guess halfway, in lambda, stands for the step.

  Of second order from the first step on, at two evaluations each; at one for a step from -inf or to +inf, which is DDIM's.
  """

  def __call__(self, grid) -> Method:
    grid = grids.checked(grid)
    unit, at, rows = np.eye(3), [], []  # slots: x, and x at the step's start
    for t, s in zip(grid[:-1], grid[1:]):
      step = lambda x, end: sigma(end) / sigma(t) * x + alpha(end) * -np.expm1((t - end) / 2) * unit[-1]  # noqa: B023
      if np.isfinite(s - t):
        at += [t, (t + s) / 2]
        rows += [[step(unit[0], (t + s) / 2), unit[0]], [step(unit[1], s), unit[1]]]
      else:
        at += [t]
        rows += [[step(unit[0], s), unit[0]]]
    return Method(np.array(at), np.array(rows), np.zeros((len(at), 2)))


def _extrapolated(grid, order: int, rate: int = 1, plain: bool = False):
  """Weights of the guesses in a step of each pair of levels, newest first, [N, order]; rate 1 for the flow, 2 for the SDE."""
  weights = np.zeros((len(grid) - 1, order))
  for i, (t, s) in enumerate(zip(grid[:-1], grid[1:])):
    nodes = _nodes(grid, i, order)
    weights[i, : len(nodes)] = alpha(s) * _weights(rate * (s - t) / 2, nodes, plain)
  return weights


def _nodes(grid, index: int, order: int):
  """Where the guesses are that make the polynomial of a step: 0 its start, -1 one such step before it, newest first."""
  t, s = grid[index], grid[index + 1]
  if not np.isfinite(s - t):
    return np.zeros(1)
  before = grid[max(index - order + 1, 0) : index][::-1]
  before = before[before > -np.inf]  # what lies infinitely far back bends nothing
  return np.append(0.0, (before - t) / (s - t))


def _weights(z, nodes, plain: bool = False):
  """What the guesses at `nodes` weigh in int_0^1 z e^(z (v - 1)) D(v) dv, D the polynomial through them.

  For two, both papers replace the integral of z e^(z (v - 1)) v by B / 2; B is 1 - e^-z, or z itself if `plain`.
  """
  moments = _moments(z, len(nodes))
  if len(nodes) == 2:
    moments[1] = (z if plain else moments[0]) / 2
  weights = np.empty(len(nodes))
  for j, node in enumerate(nodes):  # Lagrange's polynomial: 1 at this node, 0 at the others
    others = np.delete(nodes, j)
    weights[j] = np.atleast_1d(np.poly(others))[::-1] @ moments / np.prod(node - others)
  return weights


def _moments(z, count: int):
  """int_0^1 z e^(z (v - 1)) v^n dv for n < count, float64; z > 0, inf if count is 1."""
  if z < 1:  # all terms are positive, where the recursion below would lose digits
    return np.array([z * math.exp(-z) * sum(z**k / (math.factorial(k) * (n + k + 1)) for k in range(20)) for n in range(count)])
  moments = [-np.expm1(-z)]
  for n in range(1, count):  # by parts
    moments.append(1 - n / z * moments[-1])
  return np.array(moments)


def _check(order: int, most: int):
  if not 1 <= order <= most:
    raise UserError(f"this solver is of order 1 to {most}, not {order}")
