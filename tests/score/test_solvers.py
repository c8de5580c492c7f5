"""Every solver's table against closed forms on Gaussian data, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.score import grids, noise, solvers
from gm_jax.score.langevin import AnnealedLangevin
from gm_jax.score.multistep import IPNDM, DPMpp, UniPC
from gm_jax.score.noise import alpha, ratio, sigma
from gm_jax.score.solvers import DDIM, Ancestral, Heun
from tests.score import gaussian
from tests.score.members import FLOWS, NEED_SOME_IMAGE, RIGHT_FOR_A_POINT, SOLVERS, each

GRIDS = {
  "in log SNR": grids.in_log_snr(8.0, -8.0, 12),
  "Karras": grids.karras(9),
  "in time": grids.in_time(noise.linear(), 11),
  "trailing": grids.trailing(noise.discrete(noise.linear_betas()), 7),
}


def levels_of(method, grid):
  """Where slots[0] is, before each row and after the last."""
  return np.append(method.log_snr, grid[-1])


# --- Any data, any solver ---


@each(SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_point_mass_is_hit_exactly(solver, num_steps):
  """A single picture in the data: every solver in any number of steps ends on it, no noise left."""
  method = solver(grids.in_time(noise.linear(), num_steps))
  rng = np.random.default_rng(0)
  x = gaussian.follow(gaussian.denoiser(0.7, 0.0), method, rng.normal(size=5), rng.normal(size=(len(method.log_snr), 5)))
  np.testing.assert_allclose(x, 0.7, rtol=1e-10)


@each(SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_all_is_finite_in_any_number_of_steps(solver, num_steps):
  rng = np.random.default_rng(0)
  schedules = {"linear": noise.linear(), "cosine": noise.cosine(), "all the way": noise.straight()}
  for name, schedule in schedules.items():
    for last in (np.inf, 9.0):
      grid = grids.in_time(schedule, num_steps, last)
      if name == "all the way" and solver in NEED_SOME_IMAGE.values():
        with pytest.raises(UserError, match="-inf"):
          solver(grid)
        continue
      method = solver(grid)
      assert all(np.isfinite(table).all() for table in method[1:])
      x = gaussian.follow(gaussian.mixture(), method, rng.normal(size=5), rng.normal(size=(len(method.log_snr), 5)))
      assert np.isfinite(x).all()


@each(SOLVERS)
def test_mean_and_variance_become_the_datas(solver):
  """The finer the grid, the nearer, whatever the solver: its flow, its SDE or its Markov chain is the right one."""
  mean, std = 0.5, 0.6
  errors = []
  for num_steps in (25, 400):
    grid = grids.in_log_snr(9.0, -9.0, num_steps)
    m, v = gaussian.moments(solver(grid), mean, std, gaussian.marginal(grid, mean, std)[:, 0])[:, -1]
    errors.append(max(abs(m - mean), abs(v - std**2)))
  # Langevin's own bias is of its step size, and not of the grid's.
  limit = 0.05 if isinstance(solver, AnnealedLangevin) else 0.01
  assert errors[1] < limit
  assert errors[1] < errors[0] or errors[0] < 1e-3


@pytest.mark.parametrize("grid", [GRIDS["in log SNR"], np.linspace(-6, 7, 9)], ids=["to the image", "not quite"])
def test_evaluations_are_counted(grid):
  """The denoiser is called as often as the method says, and as the papers do: Heun and 2S twice but for a step to the image."""
  count, to_image = len(grid) - 1, grid[-1] == np.inf
  expected = {name: count for name in SOLVERS}
  expected |= {name: 2 * count - to_image for name in ("Heun", "churned", "DPM++ 2S")}
  expected["Langevin"] = 5 * count + 1 if to_image else 5 * (count + 1)
  for name, solver in SOLVERS.items():
    assert solver(grid).num_evaluations == expected[name], name
  calls = []

  def denoise(x, log_snr):
    jax.debug.callback(lambda level: calls.append(float(level)), log_snr)
    return 0.3 * x

  for name in ("Heun", "UniPC 3"):
    calls.clear()
    method = SOLVERS[name](grid)
    jax.block_until_ready(solvers.follow(denoise, method, jnp.ones((2, 1)), jax.random.key(0)))
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(calls), sorted(method.log_snr), rtol=1e-6)


@each(FLOWS | RIGHT_FOR_A_POINT)
@each(GRIDS, "grid")
def test_noise_about_a_point_is_what_the_level_says(solver, grid):
  """Data of one point c: x - alpha c keeps to the variance sigma^2 all the way, and in a flow scales with sigma, exactly."""
  grid = grid[:-1]
  method = solver(grid)
  start = gaussian.marginal(levels_of(method, grid), 0.7, 0.0)
  actual = gaussian.moments(method, 0.7, 0.0, start[:, 0])
  np.testing.assert_allclose(actual, start, rtol=1e-9, atol=1e-12)
  if solver in FLOWS.values():
    end = gaussian.follow(gaussian.denoiser(0.7, 0.0), method, np.array([0.4]))
    eps = (0.4 - alpha(grid[0]) * 0.7) / sigma(grid[0])
    np.testing.assert_allclose(end, alpha(grid[-1]) * 0.7 + sigma(grid[-1]) * eps, rtol=1e-9)


# --- DDIM and its relatives ---


@each(GRIDS, "grid")
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_step_by_step(grid, eta):
  """x_s has sigma_s^2 of noise whatever eta, the guessed part shrinking as the new part grows (equation 12, Gaussian data)."""
  mean, std = -0.4, 0.8
  m, v = 0.1, 1.3
  expected = [(m, v)]
  for t, s in zip(grid[:-1], grid[1:]):
    total = gaussian.variance(t, std)
    fresh = eta * sigma(s) / sigma(t) * np.sqrt(1 - (alpha(t) / alpha(s)) ** 2)
    # x_s - alpha_s mean = gain (x_t - alpha_t mean) + fresh z: with eta = 0 the gain is (a_s a_t std^2 + s_s s_t) / V_t.
    gain = (alpha(s) * alpha(t) * std**2 + np.sqrt(sigma(s) ** 2 - fresh**2) * sigma(t)) / total
    m, v = alpha(s) * mean + gain * (m - alpha(t) * mean), gain**2 * v + fresh**2
    expected.append((m, v))
  actual = gaussian.moments(DDIM(eta)(grid), mean, std, (0.1, 1.3))
  np.testing.assert_allclose(actual, np.array(expected).T, rtol=1e-9, atol=1e-12)


def test_ddim_is_eulers_method_of_every_gauge():
  """Rectified flow's z = (1 - t) x_0 + t eps by dz/dt = eps - x_0, and y = x_0 + s eps by dy/ds = eps, step by step."""
  denoise, grid = gaussian.mixture(), np.linspace(-5, 6, 8)
  x = z = y = 0.4
  z, y = z / (alpha(grid[0]) + sigma(grid[0])), y / alpha(grid[0])
  for t, s in zip(grid[:-1], grid[1:]):
    time, later = (sigma(level) / (alpha(level) + sigma(level)) for level in (t, s))
    guess = denoise(z * (alpha(t) + sigma(t)), t)
    z = z + (later - time) * (z - guess) / time  # eps - x_0 = (z - x_0) / t
    y = y + (ratio(s) - ratio(t)) * (y - denoise(y * alpha(t), t)) / ratio(t)
  x = gaussian.follow(denoise, DDIM()(grid), x)
  np.testing.assert_allclose([z * (alpha(s) + sigma(s)), y * alpha(s)], x, rtol=1e-12)


@each({**GRIDS, "from nothing": grids.in_time(noise.straight(), 6)}, "grid")
def test_what_is_the_same_is_the_same(grid):
  """DPM++ and UniPC of order 1, iPNDM of order 1 and DDIM; the SDE of order 1, ancestral with `small`, and DDIM of eta 1."""
  t = grid[:-1]
  for others, one in (
    ((DPMpp(1), UniPC(1, corrector=False), IPNDM(1)), DDIM()),
    ((DPMpp(1, sde=True), DDIM(1.0), Ancestral("optimal", 0.0)), Ancestral()),
  ):
    expected = one(grid)
    for other in others:
      method = other(grid)
      np.testing.assert_array_equal(method.log_snr, t)
      np.testing.assert_allclose(method.weights, expected.weights, rtol=1e-9, atol=1e-12)
      np.testing.assert_allclose(method.noise, expected.noise, rtol=1e-9, atol=1e-12)


@each(GRIDS, "grid")
@pytest.mark.parametrize("std", [0.0, 0.3, 1.0])
def test_the_right_variance_retraces_every_marginal(grid, std):
  """With the true variance of q(x_s | x_t) all levels have their own moments: `small` for a point, `large` for N(0, 1)."""
  expected = gaussian.marginal(grid, 0.5, std)
  right = [Ancestral("optimal", std**2)] + [Ancestral("large")] * (std == 1) + [Ancestral("small")] * (std == 0)
  for solver in right:
    actual = gaussian.moments(solver(grid), 0.5, std, expected[:, 0])
    np.testing.assert_allclose(actual[:, :-1], expected[:, :-1], rtol=1e-9, atol=1e-12)
    # The last step adds none, so it lands on E[x_0 | x_t] and not on a draw.
    last = grid[-2]
    kept = (alpha(last) * std**2) ** 2 / gaussian.variance(last, std)
    np.testing.assert_allclose(actual[:, -1], (0.5, kept), rtol=1e-9, atol=1e-12)
  for wrong in {Ancestral("large"), Ancestral("small")} - set(right):
    _, actual = gaussian.moments(wrong(grid), 0.5, std, expected[:, 0])
    assert np.abs(actual[:-1] / expected[1, :-1] - 1).max() > 1e-2


@each(GRIDS, "grid")
def test_churn_raises_the_noise_and_nothing_else(grid):
  """Where each step starts, x has as much more noise as the paper's gamma says, inflated; the last level is not churned."""
  grid = grid[:-1]
  count = len(grid) - 1
  method = Heun(churn=0.2 * count, least=0.1, most=5.0, inflation=1.01)(grid)
  levels = ratio(method.log_snr[::2])
  churned = (ratio(grid[:-1]) >= 0.1) & (ratio(grid[:-1]) <= 5.0)
  np.testing.assert_allclose(levels, ratio(grid[:-1]) * np.where(churned, 1.2, 1.0), rtol=1e-12)
  np.testing.assert_allclose(ratio(method.log_snr[1::2]), ratio(grid[1:]), rtol=1e-12)
  expected = np.where(churned, 1.01 * ratio(grid[:-1]) * np.sqrt(1.2**2 - 1), 0)[1:]
  np.testing.assert_allclose(method.noise[1::2, 0] / alpha(method.log_snr[::2])[np.r_[1:count, -1]], np.append(expected, 0))
  assert not method.noise[::2].any()
  # Too much of it is cut at sqrt(2) - 1.
  np.testing.assert_allclose(ratio(Heun(churn=1e9)(grid).log_snr[0]) / ratio(grid[0]), np.sqrt(2), rtol=1e-12)


@pytest.mark.parametrize(("solver", "order"), [(DDIM(), 1), (Heun(), 2)], ids=["DDIM", "Heun"])
@pytest.mark.parametrize("data", [gaussian.denoiser(0.5, 0.6), gaussian.mixture()], ids=["Gaussian", "mixture"])
def test_order_of_convergence(solver, order, data):
  counts, errors = (32, 64, 128), []
  for count in counts:
    grid = np.linspace(-4, 4, count + 1)
    exact = gaussian.flow(data, grid[[0, -1]], 0.3)[-1]
    errors.append(abs(gaussian.follow(data, solver(grid), 0.3) - exact))
  assert abs(gaussian.slope(counts, errors) - order) < 0.15


def test_the_flow_conserves_what_it_should():
  """The reference itself: (x - alpha mean) / sqrt(V) of Gaussian data stays as it was."""
  grid, mean, std = np.linspace(-6, 8, 15), 0.5, 0.6
  x = gaussian.flow(gaussian.denoiser(mean, std), grid, 0.3)
  kept = (x - alpha(grid) * mean) / np.sqrt(gaussian.variance(grid, std))
  np.testing.assert_allclose(kept, kept[0], rtol=1e-10)


def test_refusals():
  for make in (
    lambda: DDIM(1.5),
    lambda: DDIM(-0.1),
    lambda: Ancestral("medium"),
    lambda: DPMpp(0),
    lambda: DPMpp(4),
    lambda: UniPC(4),
    lambda: UniPC(2, variant="bh3"),
    lambda: IPNDM(5),
    lambda: AnnealedLangevin(0),
    lambda: AnnealedLangevin(1, 4.0),
  ):
    with pytest.raises(UserError):
      make()
  for solver in SOLVERS.values():
    for grid in ([1.0], [0.0, -1.0], [0.0, 0.0, 1.0], [0.0, np.nan], [[0.0, 1.0]]):
      with pytest.raises(UserError, match="rising"):
        solver(grid)
