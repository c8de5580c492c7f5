"""Solvers with memory: against the papers' algorithms written out, polynomials they must be exact for, and measured orders."""

import numpy as np
import pytest
from scipy import integrate

from gm_jax.score import grids, noise
from gm_jax.score.multistep import IPNDM, DPMpp, DPMpp2S, UniPC
from gm_jax.score.noise import alpha, ratio, sigma
from gm_jax.score.solvers import DDIM
from tests.score import gaussian

MIXTURE = gaussian.mixture()
UNEVEN = np.array([-6.0, -5.2, -3.9, -3.1, -1.0, 0.3, 2.2, 2.9, 4.6])


# --- The papers' algorithms, in their own letters ---


def papers_2m(denoise, grid, x):
  """DPM-Solver++, Algorithm 2: lambda is half of log SNR."""
  lambdas, guesses = grid / 2, []
  for i in range(1, len(grid)):
    guesses.append(denoise(x, grid[i - 1]))
    h = lambdas[i] - lambdas[i - 1]
    mixed = guesses[-1]
    if i > 1:
      r = (lambdas[i - 1] - lambdas[i - 2]) / h
      mixed = (1 + 1 / (2 * r)) * guesses[-1] - 1 / (2 * r) * guesses[-2]
    x = sigma(grid[i]) / sigma(grid[i - 1]) * x - alpha(grid[i]) * (np.exp(-h) - 1) * mixed
  return x


def papers_sde_2m(denoise, grid, x, z):
  """SDE-DPM-Solver++(2M) (their section 6)."""
  guesses = []
  for i in range(1, len(grid)):
    guesses.append(denoise(x, grid[i - 1]))
    h, a, s = (grid[i] - grid[i - 1]) / 2, alpha(grid[i]), sigma(grid[i])
    new = 1 - np.exp(-2 * h)
    x = s / sigma(grid[i - 1]) * np.exp(-h) * x + a * new * guesses[-1] + s * np.sqrt(new) * z[i - 1]
    if i > 1:
      r = (grid[i - 1] - grid[i - 2]) / 2 / h
      x = x + a * new / 2 * (guesses[-1] - guesses[-2]) / r
  return x


def papers_unipc(denoise, grid, x, order, variant):
  """UniPC for guesses of the image (Zhao et al. 2023, appendix A): a from R(h) a B(h) = g(h), and 1/2 if it is one number."""

  def step(i, x, p, guesses, corrector):
    h = (grid[i] - grid[i - 1]) / 2
    b = h if variant == "bh1" else 1 - np.exp(-h)
    r = [(grid[i - 1 - m] - grid[i - 1]) / 2 / h for m in range(1, p)] + [1.0] * corrector
    differences = [guesses[-1 - corrector - m] - guesses[-1 - corrector] for m in range(1, p)]
    differences += [guesses[-1] - guesses[-2]] if corrector else []
    x = sigma(grid[i]) / sigma(grid[i - 1]) * x + alpha(grid[i]) * (1 - np.exp(-h)) * guesses[-1 - corrector]
    if not r:
      return x
    # h^n n! psi_{n + 1}(h) with psi_0 = e^-h and psi_{n + 1} = (1 / n! - psi_n) / h.
    psi, g, factorial = (1 - np.exp(-h)) / h, [], 1
    for n in range(1, len(r) + 1):
      factorial *= n
      psi = (1 / factorial - psi) / h
      g.append(h**n * factorial * psi)
    powers = np.array([[(value * h) ** n for value in r] for n in range(len(r))])
    a = np.linalg.solve(powers, g) / b if len(r) > 1 else [0.5]
    return x + alpha(grid[i]) * b * sum(weight * d / value for weight, d, value in zip(a, differences, r))

  guesses = [denoise(x, grid[0])]
  for i in range(1, len(grid)):
    p = min(order, i)
    predicted = step(i, x, p, guesses, 0)
    if i == len(grid) - 1:
      return predicted
    guesses.append(denoise(predicted, grid[i]))
    x = step(i, x, p, guesses, 1)


def papers_ipndm(denoise, grid, x, order):
  """dy/ds = eps by Adams and Bashforth, from the integrals of Lagrange's polynomials on an even grid."""
  y, slopes = x / alpha(grid[0]), []
  for t, s in zip(grid[:-1], grid[1:]):
    slopes.insert(0, (y - denoise(y * alpha(t), t)) / ratio(t))
    nodes = -np.arange(min(order, len(slopes)))
    weights = np.linalg.solve(np.vander(nodes, increasing=True).T, 1 / np.arange(1, len(nodes) + 1))
    y = y + (ratio(s) - ratio(t)) * sum(weight * slope for weight, slope in zip(weights, slopes))
  return y * alpha(grid[-1])


def papers_2s(denoise, grid, x):
  """DPM-Solver++, Algorithm 1 with r = 1/2."""
  for t, s in zip(grid[:-1], grid[1:]):
    h, middle = (s - t) / 2, (s + t) / 2
    u = sigma(middle) / sigma(t) * x - alpha(middle) * (np.exp(-h / 2) - 1) * denoise(x, t)
    x = sigma(s) / sigma(t) * x - alpha(s) * (np.exp(-h) - 1) * denoise(u, middle)
  return x


@pytest.mark.parametrize("grid", [UNEVEN, np.linspace(-5, 7, 10)], ids=["uneven", "even"])
def test_tables_are_the_papers_algorithms(grid):
  x = np.array([-1.1, 0.2, 0.9])
  cases = [(DPMpp(2), papers_2m(MIXTURE, grid, x)), (DPMpp2S(), papers_2s(MIXTURE, grid, x))]
  cases += [(UniPC(p, True, b), papers_unipc(MIXTURE, grid, x, p, b)) for p in (1, 2, 3) for b in ("bh1", "bh2")]
  cases += [(IPNDM(order), papers_ipndm(MIXTURE, grid, x, order)) for order in (1, 2, 3, 4)]
  for solver, expected in cases:
    np.testing.assert_allclose(gaussian.follow(MIXTURE, solver(grid), x), expected, rtol=1e-9, err_msg=str(solver))
  z = np.random.default_rng(0).normal(size=(len(grid) - 1, 3))
  actual = gaussian.follow(MIXTURE, DPMpp(2, sde=True)(grid), x, z)
  np.testing.assert_allclose(actual, papers_sde_2m(MIXTURE, grid, x, z), rtol=1e-9)


@pytest.mark.parametrize("grid", [UNEVEN, grids.karras(9), grids.in_time(noise.straight(), 8)], ids=["uneven", "Karras", "all"])
def test_unipc_without_corrector_is_dpmpp(grid):
  for order in (1, 2, 3):
    one, other = UniPC(order, corrector=False)(grid), DPMpp(order)(grid)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-12)


# --- What is exact ---


def exact_step(t, s, guess, rate=1):
  """alpha_s int_0^h rate e^(rate (u - h)) D(u) du by quadrature, D a function of lambda."""
  h = (s - t) / 2
  return (
    alpha(s) * integrate.quad(lambda u: rate * np.exp(rate * (u - h)) * guess(t / 2 + u), 0, h, epsabs=1e-13, epsrel=1e-13)[0]
  )


@pytest.mark.parametrize("scale", [1.0, 0.02], ids=["long", "short"])
@pytest.mark.parametrize(
  ("solver", "degree", "rate"),
  [
    (DPMpp(1), 0, 1),
    (DPMpp(1, sde=True), 0, 2),
    (DPMpp(3), 2, 1),
    (DPMpp(3, sde=True), 2, 2),
    (UniPC(2), 2, 1),
    (UniPC(3), 3, 1),
  ],
  ids=lambda value: str(value),
)
def test_polynomials_are_integrated_exactly(solver, degree, rate, scale):
  """A guess that is a polynomial in lambda, whatever x: each step past the start is exact, with steps of any lengths."""
  grid = UNEVEN * scale
  rng = np.random.default_rng(0)
  bend = np.polynomial.Polynomial(rng.normal(size=degree + 1) / scale ** np.arange(degree + 1))
  guess = lambda x, log_snr: np.full(np.shape(x), bend(log_snr / 2))
  method, order = solver(grid), solver.order
  known = lambda index, count: [bend(grid[index - j] / 2) for j in range(1, count + 1)]
  x, exact = 0.3, [0.3]
  for t, s in zip(grid[order - 1 : -1], grid[order:]):
    keep = sigma(s) / sigma(t) * np.exp((1 - rate) * (s - t) / 2)
    exact.append(keep * exact[-1] + exact_step(t, s, bend, rate))
  if isinstance(solver, UniPC):  # one step later, so that the step before can be corrected; whatever was predicted
    slots = gaussian.resumed(guess, method, [9.9, x, *known(order, order)], order)
    np.testing.assert_allclose(slots[1], exact[-2], rtol=1e-9)
  else:
    slots = gaussian.resumed(guess, method, [x, *known(order - 1, order - 1)], order - 1)
    np.testing.assert_allclose(slots[0], exact[-1], rtol=1e-9)


def test_ipndm_is_exact_for_cubic_noise():
  """eps a cubic in sigma / alpha, on a grid on which that falls evenly."""
  levels, cubic = np.linspace(9.0, 0.5, 9), np.polynomial.Polynomial([0.3, -0.2, 0.05, 0.01])
  grid = noise.from_ratio(levels)
  denoise = lambda x, log_snr: (x - sigma(log_snr) * cubic(ratio(log_snr))) / alpha(log_snr)
  y = 0.4 + cubic.integ()(levels) - cubic.integ()(levels[3])
  slots = [alpha(grid[3]) * y[3], *cubic(levels[2::-1])]
  x = gaussian.resumed(denoise, IPNDM(4)(grid), slots, 3)[0]
  np.testing.assert_allclose(x, alpha(grid[-1]) * y[-1], rtol=1e-10)


# --- Orders ---


def seeded(solver, grid, x, denoise):
  """The end of the exact flow's `x` [N + 1] followed by a solver from where it knows enough: its past is the flow's own.

  One step of first order at the start would hold the whole way to the second.
  """
  method, guesses = solver(grid), denoise(x, grid)
  memory = method.noise.shape[1]
  if isinstance(solver, UniPC) and solver.corrector:
    first, past = solver.order, lambda k: [x[k - 1], *guesses[k - solver.order : k][::-1]]
  elif isinstance(solver, IPNDM):
    eps = (x - alpha(grid) * guesses) / sigma(grid)
    first, past = memory - 1, lambda k: eps[:k][::-1]
  elif isinstance(solver, DPMpp2S):
    first, past = 0, lambda k: [0.0]
  else:
    first, past = memory - 1, lambda k: guesses[:k][::-1]
  return gaussian.resumed(denoise, method, [x[first], *past(first)], first)[0]


EVEN, EVEN_RATIO = np.linspace(-4, 4, 513), noise.from_ratio(np.linspace(2.0, 0.6, 513))


@pytest.mark.parametrize(
  ("solver", "order", "finest"),
  [
    *((solver, solver.order, EVEN) for solver in (DPMpp(1), DPMpp(2), DPMpp(3))),
    *((UniPC(p, False, b), p, EVEN) for p in (1, 2, 3) for b in ("bh1", "bh2")),
    *((UniPC(p, True, b), p + 1, EVEN) for p in (1, 2, 3) for b in ("bh1", "bh2")),
    *((IPNDM(p), p, EVEN_RATIO) for p in (1, 2, 3, 4)),
    (IPNDM(4), 2, EVEN),
    (DPMpp2S(), 2, EVEN),
  ],
  ids=lambda value: "" if isinstance(value, np.ndarray) else str(value),
)
def test_order_of_convergence(solver, order, finest):
  """As the papers have it: with UniPC's corrector one more; iPNDM's where sigma / alpha falls evenly, else two."""
  for denoise in (gaussian.denoiser(0.5, 0.6), MIXTURE):
    exact, counts, errors = gaussian.flow(denoise, finest, 0.3), (256, 512), []
    for count in counts:
      every = 512 // count
      errors.append(abs(seeded(solver, finest[::every], exact[::every], denoise) - exact[-1]))
    assert abs(gaussian.slope(counts, errors) - order) < 0.15, errors


# --- The ends of the grid ---


FROM_NOTHING = [-np.inf, -4.0, -2.5, -0.5, 1.0, 4.0, np.inf]


@pytest.mark.parametrize("solver", [DDIM(), DPMpp(2), IPNDM(4), DPMpp2S()], ids=str)
def test_nothing_but_noise_is_the_limit_of_much_noise(solver):
  """A start at -inf ends where one at -1400 does."""
  x = np.array([-1.0, 0.3])
  ends = [gaussian.follow(MIXTURE, solver([start, *FROM_NOTHING[1:]]), x) for start in (-np.inf, -1400.0)]
  np.testing.assert_allclose(*ends, atol=1e-3)


@pytest.mark.parametrize("solver", [DPMpp(3), UniPC(3), UniPC(3, False), DPMpp(3, sde=True)], ids=str)
def test_a_guess_from_nothing_but_noise_bends_nothing(solver):
  """It is remembered, but from the next level on all is as if the grid began there."""
  np.testing.assert_array_equal(solver(FROM_NOTHING).weights[1:], solver(FROM_NOTHING[1:]).weights)


@pytest.mark.parametrize("solver", [DPMpp(3), UniPC(2), UniPC(3, False), IPNDM(4), DPMpp2S()], ids=str)
def test_a_step_to_the_image_ends_on_the_last_guess(solver):
  grid = np.append(UNEVEN, np.inf)
  last = solver(grid).weights[-1, 0]
  np.testing.assert_array_equal(last, np.eye(len(last))[-1])


def test_ten_evaluations_are_better_than_forty():
  """Of the fast ones and of DDIM: the distance to where the flow ends, from the same noise."""
  x, make = np.random.default_rng(0).normal(size=200), lambda count: grids.in_log_snr(8.0, -6.0, count)
  ends = gaussian.follow(MIXTURE, DPMpp(3)(make(500)), x)
  error = lambda solver, count: np.sqrt(np.mean((gaussian.follow(MIXTURE, solver(make(count)), x) - ends) ** 2))
  slow = error(DDIM(), 40)
  for solver in (DPMpp(3), UniPC(2), UniPC(3), IPNDM(4)):
    assert error(solver, 10) < slow, solver
