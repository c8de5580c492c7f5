"""Kernels leave their target as it is: transition matrices written out, draws that start exactly right, closed forms."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import markov_chain as mc
from gm_jax import random, rows

RNG = np.random.default_rng(0)


# Targets.


def bent(x):
  """x1 standard normal, x2 normal about x1^2 / 2 with deviation 1/2: far from Gaussian, and drawn exactly."""
  return -(x[:, 0] ** 2) / 2 - 2 * (x[:, 1] - x[:, 0] ** 2 / 2) ** 2


def draw_bent(num):
  x = RNG.normal(size=(num, 2))
  return jnp.float32(np.stack([x[:, 0], x[:, 0] ** 2 / 2 + x[:, 1] / 2], 1))


MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.6], [0.6, 0.8]])
PRECISION = jnp.float32(np.linalg.inv(COVARIANCE))


def correlated(x):
  shift = x - jnp.float32(MEAN)[None]
  return -0.5 * ((shift @ PRECISION) * shift).sum(1)


def standard(x):
  return -0.5 * (x**2).sum(1)


KERNELS = {
  "random-walk": lambda log_prob: mc.random_walk(log_prob, jnp.array([1.0, 0.6])),
  "langevin": lambda log_prob: mc.mala(log_prob, 0.7),
  "hamiltonian": lambda log_prob: mc.hmc(log_prob, jnp.array([0.5, 0.3]), 4),
}
kernels = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)


# Continuous laws.


@kernels
def test_draws_that_start_right_stay_right_and_are_reversible(make):
  """40,000 exact draws, one step each: moments have not moved, and (x, x') is as likely as (x', x)."""
  before = draw_bent(40_000)
  kernel = make(bent)
  state, info = jax.jit(lambda x: kernel.step(jax.random.key(0), kernel.init(x)))(before)
  x, y = np.float64(before), np.float64(state.position)
  assert 0.3 < info.acceptance.mean() < 0.95  # a test of refusals needs some
  moments = lambda x: np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 1] ** 2, x[:, 0] * x[:, 1], x[:, 0] ** 2 * x[:, 1]], 1)
  differences = [moments(y) - moments(x)]
  for f, g in itertools.combinations(moments(np.stack([x, y]).reshape(-1, 2)).reshape(2, -1, 6).transpose(2, 0, 1), 2):
    differences.append((f[0] * g[1] - f[1] * g[0])[:, None])
  differences = np.concatenate(differences, 1)
  scores = differences.mean(0) / (differences.std(0) / np.sqrt(len(x)))
  assert np.abs(scores).max() < 4.5, scores


summarise = jax.jit(lambda draws: draws.summary())


def sampled(kernel, start, num_steps=600, burn_in=0):
  """(draws, their summary); a summary is compiled once for all kernels that draw as much."""
  draws = jax.jit(lambda key, start: mc.run(kernel, key, start, num_steps))(jax.random.key(0), start)
  draws = draws._replace(positions=jax.tree.map(lambda leaf: leaf[burn_in:], draws.positions), state=None)
  return draws, summarise(draws)


@pytest.mark.parametrize("name", ["random-walk", "hamiltonian"])
def test_moments_of_a_gaussian_within_the_error_that_the_effective_sample_size_gives(name):
  start = jnp.float32(RNG.multivariate_normal(MEAN, COVARIANCE, 50))
  draws, summary = sampled(KERNELS[name](correlated), start)
  assert np.all(np.abs(summary.mean - MEAN) < 4.5 * summary.stderr), summary
  np.testing.assert_allclose(summary.deviation**2, np.diag(COVARIANCE), rtol=0.1)
  assert np.corrcoef(draws.positions.reshape(-1, 2).T)[0, 1] == pytest.approx(0.6 / np.sqrt(0.8), abs=0.05)
  assert np.all(summary.r_hat < 1.05)
  # The error of a mean over chains is known from the chains' own means too, without a word about autocorrelation.
  by_chains = np.float64(draws.positions).mean(0).std(0, ddof=1) / np.sqrt(50)
  np.testing.assert_allclose(summary.stderr, by_chains, rtol=0.4)  # four deviations of an estimate from 50 numbers
  assert summary.acceptance == pytest.approx(np.mean(draws.acceptance))


def test_langevin_refuses_by_the_rule_of_its_proposal():
  """The acceptance that a leapfrog's energy gives is Hastings's ratio for x + h^2 / 2 slope + h noise."""
  h, x = 0.7, draw_bent(500)
  kernel = mc.mala(bent, h)
  state, info = jax.jit(lambda x: kernel.step(jax.random.key(0), kernel.init(x)))(x)
  x, y = np.float64(x), np.float64(state.position)

  def slope(x):
    off = x[:, 1] - x[:, 0] ** 2 / 2
    return np.stack([-x[:, 0] + 4 * off * x[:, 0], -4 * off], 1)

  log_q = lambda there, here: -((there - here - h**2 / 2 * slope(here)) ** 2).sum(1) / (2 * h**2)
  expected = np.exp(np.minimum(0, bent(y) - bent(x) + log_q(x, y) - log_q(y, x)))
  moved = np.asarray(info.accepted)
  assert 50 < moved.sum() < 450
  np.testing.assert_allclose(info.acceptance[moved], expected[moved], rtol=1e-3)
  np.testing.assert_array_equal(y[~moved], x[~moved])
  np.testing.assert_allclose(state.slope, slope(y), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(state.log_prob, bent(y), rtol=1e-5, atol=1e-5)


def test_unrefused_langevin_has_its_known_bias():
  """On a standard normal the stationary variance is 1 / (1 - h^2 / 4) for steps of h."""

  @jax.jit
  def sampled(h):
    return mc.run(mc.unadjusted_langevin(lambda x: -x, h), jax.random.key(0), jnp.zeros((20_000, 1)), 60, thin=20).positions

  for h in (0.5, 1.0, 1.5):
    variance = np.var(np.float64(sampled(h)[1:]))
    assert variance == pytest.approx(1 / (1 - h**2 / 4), rel=4 * np.sqrt(2 / 40_000))


def trajectory(log_prob, num_steps, step_size):
  """(x, p) [D] each -> (x, p) later, as one vector [2 D] -> [2 D]."""

  def move(both):
    x, momentum = jnp.split(both, 2)
    state, momentum = mc.leapfrog(log_prob, mc.hmc(log_prob, 1.0, 1).init(x[None]), momentum[None], step_size, num_steps)
    return jnp.concatenate([state.position[0], momentum[0]])

  return move


def test_no_trajectory_length_is_a_trap():
  """Ten steps of pi / 5 are once round: of that length alone, no chain would ever move."""
  start = jnp.float32(RNG.normal(size=(50, 2)))
  _, summary = sampled(mc.hmc(standard, np.pi / 5, 10), start)
  assert summary.effective_samples.min() > 2000
  assert summary.r_hat.max() < 1.05


def test_leapfrog_runs_back_and_keeps_volume():
  with jax.enable_x64(True):
    move = jax.jit(trajectory(bent, 20, jnp.array([0.15, 0.1])))
    for both in RNG.normal(size=(5, 4)):
      there = move(both)
      back = move(there * np.array([1, 1, -1, -1]))
      assert np.abs(there - both).max() > 0.1
      np.testing.assert_allclose(back * np.array([1, 1, -1, -1]), both, atol=1e-10)
      assert abs(np.linalg.det(jax.jacfwd(move)(both))) == pytest.approx(1, abs=1e-9)


def test_leapfrog_is_of_second_order():
  """Half the step, a quarter of the error, against the rotation that a standard normal's motion is."""
  with jax.enable_x64(True):
    both, errors = np.array([1.0, -0.5, 0.3, 0.8]), []
    for num_steps in (20, 40, 80):
      x, p = both[:2], both[2:]
      exact = np.concatenate([x * np.cos(2) + p * np.sin(2), p * np.cos(2) - x * np.sin(2)])
      errors.append(np.abs(trajectory(standard, num_steps, 2 / num_steps)(both) - exact).max())
  np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.02)


def test_where_the_density_is_zero_or_not_a_number_nobody_goes():
  """Uniform on [0, 1], -inf outside, NaN further out."""

  def log_prob(x):
    inside = (x[:, 0] >= 0) & (x[:, 0] <= 1)
    return jnp.where(inside, 0.0, jnp.where(jnp.abs(x[:, 0]) > 2, jnp.nan, -jnp.inf))

  for kernel in (mc.random_walk(log_prob, 1.5), mc.hmc(log_prob, 1.0, 2)):
    x = jnp.float32(RNG.uniform(size=(5000, 1)))
    x = np.float64(jax.jit(lambda x, kernel=kernel: mc.run(kernel, jax.random.key(0), x, 5))(x).state.position)
    assert x.min() >= 0
    assert x.max() <= 1
    assert stats.kstest(x[:, 0], "uniform").pvalue > 1e-4


# Tables, exactly.

TABLE = RNG.dirichlet(np.full(9, 0.7))  # of one variable with nine levels, or of two with three
TABLE_OF_BITS = RNG.dirichlet(np.full(8, 0.7))


def balance(matrix, law):
  """The largest |pi_i P_ij - pi_j P_ji|."""
  flow = law[:, None] * matrix
  return np.abs(flow - flow.T).max()


def test_metropolis_hastings_by_its_transition_matrix():
  """Jumps round a ring of nine, each with a probability of its own: the matrix is made of what the kernel itself accepts."""
  jumps = RNG.dirichlet(np.ones(8))  # q(1), ..., q(8)
  log_prob = lambda x: jnp.float32(np.log(TABLE))[x]
  matrix = np.zeros((9, 9))
  for jump, chance in enumerate(jumps, 1):
    log_way_back = np.log(jumps[9 - jump - 1] / chance)
    kernel = mc.metropolis_hastings(
      log_prob, lambda key, x, jump=jump, back=log_way_back: ((x + jump) % 9, jnp.full(len(x), back))
    )
    # Every state many times over: what is accepted must also be as often as it is said to be.
    state, info = kernel.step(jax.random.key(jump), kernel.init(jnp.tile(jnp.arange(9), 2000)))
    accepted = np.asarray(info.accepted).reshape(2000, 9).mean(0)
    acceptance = np.float64(info.acceptance[:9])
    assert np.all(np.abs(accepted - acceptance) <= 4.5 * np.sqrt(acceptance * (1 - acceptance) / 2000) + 1e-6)
    np.testing.assert_array_equal(state.position, (np.tile(np.arange(9), 2000) + jump * np.asarray(info.accepted)) % 9)
    matrix[np.arange(9), (np.arange(9) + jump) % 9] += chance * acceptance
  matrix += np.diag(1 - matrix.sum(1))
  np.testing.assert_allclose(TABLE @ matrix, TABLE, atol=1e-6)
  assert balance(matrix, TABLE) < 1e-6
  assert matrix.min() >= -1e-7


GRIDS = {"two-of-three-levels": (2, 3, TABLE), "three-bits": (3, 2, TABLE_OF_BITS)}
grids = pytest.mark.parametrize("grid", GRIDS)


def all_states(num, levels):
  return np.array(list(itertools.product(range(levels), repeat=num)), np.int32)


def log_prob_of(table, num, levels):
  place = jnp.int32(levels ** np.arange(num)[::-1])
  return lambda x: jnp.float32(np.log(table))[(x * place[None]).sum(1)]


@functools.cache
def gibbs_matrices(grid):
  """The conditional that the kernel uses, and for each variable the matrix that draws it."""
  num, levels, table = GRIDS[grid]
  states = all_states(num, levels)
  conditional = mc.conditional_of(log_prob_of(table, num, levels), levels)
  every = jax.jit(lambda x: jax.lax.map(lambda index: jax.nn.softmax(conditional(x, index)), jnp.arange(num)))
  matrices = []
  for index, probs in enumerate(np.float64(every(states))):
    same = np.all(np.delete(states[:, None] == states[None], index, 2), 2)
    matrices.append(same * probs[:, states[:, index]])
  return conditional, matrices


@grids
def test_gibbs_by_its_transition_matrix(grid):
  (num, _, table), (_, matrices) = GRIDS[grid], gibbs_matrices(grid)
  for matrix in matrices:
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(table @ matrix, table, atol=1e-6)
    assert balance(matrix, table) < 1e-6
    np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-6)  # drawn twice given the same rest: drawn once
  sweep = np.linalg.multi_dot(matrices)
  sweep /= sweep.sum(1, keepdims=True)  # float32's rounding of the rows would grow with the power
  np.testing.assert_allclose(table @ sweep, table, atol=1e-6)
  np.testing.assert_allclose(np.linalg.matrix_power(sweep, 10_000)[0], table, atol=1e-5)  # and to nothing else
  assert balance(np.linalg.matrix_power(sum(matrices) / num, num), table) < 1e-6


@grids
def test_a_sweep_moves_as_its_matrix_says(grid):
  """From each state 4000 chains, in any order of variables: how often each other state follows, by chi-square."""
  (num, levels, _), (conditional, matrices) = GRIDS[grid], gibbs_matrices(grid)
  states = all_states(num, levels)
  start = mc.chain.Position(jnp.asarray(np.repeat(states, 4000, 0)))
  for order in (mc.in_order(num)(None), np.array([num - 1, 0, 0])):
    kernel = mc.gibbs(conditional, lambda key, order=order: jnp.asarray(order))
    after = np.asarray(jax.jit(kernel.step)(jax.random.key(0), start)[0].position) @ levels ** np.arange(num)[::-1]
    expected = np.linalg.multi_dot([matrices[index] for index in order])
    for seen, probs in zip(after.reshape(len(states), 4000), expected):
      possible = probs > 1e-6
      counts = np.bincount(seen, minlength=len(states))[possible]
      assert counts.sum() == 4000
      assert stats.chisquare(counts, probs[possible] / probs[possible].sum() * 4000).pvalue > 1e-5


def test_random_order_names_every_variable_as_often():
  orders = jax.jit(jax.vmap(mc.in_random_order(5)))(jax.random.split(jax.random.key(0), 2000))
  assert orders.shape == (2000, 5)
  assert stats.chisquare(np.bincount(np.ravel(orders), minlength=5)).pvalue > 1e-4


def test_conditional_of_is_the_conditional():
  """Of images [C, H, W, 1]: the joint, renormalised over one pixel."""
  table = TABLE_OF_BITS.reshape(2, 2, 2)
  log_prob = lambda x: jnp.float32(np.log(table))[tuple(x.reshape(len(x), 3).T)]
  x = all_states(3, 2)
  got = jax.jit(lambda x, index: jax.nn.softmax(mc.conditional_of(log_prob, 2)(x, index)))
  for index in range(3):
    expected = np.moveaxis(table / table.sum(index, keepdims=True), index, -1)[tuple(np.delete(x, index, 1).T)]
    np.testing.assert_allclose(got(x.reshape(-1, 1, 3, 1), index), expected, rtol=1e-5)


WEIGHTS, CENTRES = np.array([0.3, 0.7]), np.array([-1.0, 1.5])


def make_mixture_gibbs():
  log_joint = lambda x: jnp.float32(np.log(WEIGHTS))[None] - (x - jnp.float32(CENTRES)[None]) ** 2 / 2
  sample = lambda key, which: jnp.float32(CENTRES)[which][:, None] + random.normal(key, len(which), (1,))
  return mc.mixture_gibbs(log_joint, sample)


def test_gibbs_alternates_component_and_point():
  """The law of a mixture of two normals that overlap: weights, mean and variance."""
  start = jnp.zeros(100, jnp.int32), jnp.float32(CENTRES[0] + RNG.normal(size=(100, 1)))
  _, summary = sampled(make_mixture_gibbs(), start, 400, burn_in=50)
  which_error, x_error = summary.stderr
  assert abs(summary.mean[0] - WEIGHTS[1]) < 4 * which_error
  assert abs(summary.mean[1][0] - WEIGHTS @ CENTRES) < 4 * x_error[0]
  expected = np.sqrt(1 + WEIGHTS @ CENTRES**2 - (WEIGHTS @ CENTRES) ** 2)
  assert summary.deviation[1][0] == pytest.approx(expected, rel=0.03)
  assert summary.effective_samples[0] < 0.7 * 35_000  # neighbours are alike


# Chains.


class OneChain(NamedTuple):
  """Langevin steps as a library for single chains writes them."""

  step_size: float

  def init(self, position):
    return mc.chain.Position(position)

  def step(self, key, state):
    noise = jax.random.normal(key, state.position.shape)
    return mc.chain.Position((1 - self.step_size**2 / 2) * state.position + self.step_size * noise), 0.25


ALL_KERNELS = {
  "random-walk": lambda: mc.random_walk(standard, 1.0),
  "langevin": lambda: mc.mala(standard, 1.0),
  "unadjusted-langevin": lambda: mc.unadjusted_langevin(lambda x: -x, 1.0),
  "hamiltonian": lambda: mc.hmc(standard, 1.3, 3),
  "gibbs": lambda: mc.gibbs(mc.conditional_of(log_prob_of(TABLE, 2, 3), 3), mc.in_random_order(2)),
  "mixture-gibbs": make_mixture_gibbs,
  "one-chain": lambda: mc.each_chain(OneChain(1.0), acceptance=lambda info: info),
}
all_kernels = pytest.mark.parametrize("name", ALL_KERNELS)


def start_of(name, num):
  points = np.random.default_rng(1).normal(size=(num, 2)).astype(np.float32)
  if name == "gibbs":
    return jnp.asarray(np.random.default_rng(1).integers(0, 3, (num, 2)).astype(np.int32))
  return (jnp.zeros(num, jnp.int32), jnp.asarray(points[:, :1])) if name == "mixture-gibbs" else jnp.asarray(points)


@all_kernels
def test_chain_i_depends_on_the_key_and_on_i_alone(name):
  kernel, start = ALL_KERNELS[name](), start_of(name, 7)

  def both(start):
    whole = mc.run(kernel, jax.random.key(3), start, 4)
    with rows.view(first=3):
      return whole.positions, mc.run(kernel, jax.random.key(3), jax.tree.map(lambda leaf: leaf[3:], start), 4).positions

  for one, other in zip(*map(jax.tree.leaves, jax.jit(both)(start))):
    assert len(np.unique(one[-1], axis=0)) > 1
    np.testing.assert_allclose(one[:, 3:], other, atol=2e-5)


@pytest.mark.parametrize("name", ["langevin", "mixture-gibbs"])
def test_thinning_keeps_every_nth(name):
  kernel, start = ALL_KERNELS[name](), start_of(name, 3)
  whole, thin = jax.jit(lambda start: [mc.run(kernel, jax.random.key(3), start, 12, thin) for thin in (1, 4)])(start)
  for one, other in zip(jax.tree.leaves(whole.positions), jax.tree.leaves(thin.positions)):
    np.testing.assert_allclose(one[3::4], other, atol=2e-5)
  np.testing.assert_allclose(whole.acceptance, thin.acceptance, rtol=1e-4)


def test_an_algorithm_for_one_chain_runs_on_many():
  """It is the kernel that does the same to many: same law, and what it reports arrives."""
  both = {}
  for name in ("one-chain", "unadjusted-langevin"):
    _, summary = sampled(ALL_KERNELS[name](), start_of(name, 50))
    np.testing.assert_allclose(summary.deviation**2, 4 / 3, rtol=0.03)
    both[name] = summary
  assert both["one-chain"].acceptance == 0.25
  errors = both["one-chain"].effective_samples / both["unadjusted-langevin"].effective_samples
  np.testing.assert_allclose(errors, 1, rtol=0.1)


def test_thin_must_divide():
  with pytest.raises(ValueError, match="thin must divide num_steps = 10, and 3 does not"):
    mc.run(mc.random_walk(standard, 1.0), jax.random.key(0), jnp.zeros((2, 1)), 10, thin=3)


WIDTHS = np.float32([0.1, 1.0, 10.0])


@pytest.mark.parametrize(("name", "target", "guess"), [("hamiltonian", 0.8, 0.02), ("langevin", 0.57, 20.0)])
def test_warm_up_finds_the_step_size_for_its_target(name, target, guess):
  log_prob = lambda x: -0.5 * ((x / WIDTHS[None]) ** 2).sum(1)
  make = {
    "hamiltonian": lambda step: mc.hmc(log_prob, step * WIDTHS, 3),
    "langevin": lambda step: mc.mala(log_prob, step * WIDTHS),
  }[name]
  start = jnp.float32(RNG.normal(size=(100, 3))) * WIDTHS[None]

  def both(key):
    warm = mc.warm_up(make, key, start, guess, 300, target)
    return warm, mc.run(make(warm.step_size), jax.random.fold_in(key, 0), warm.positions, 200)

  warm, draws = jax.jit(both)(jax.random.key(0))
  assert float(draws.acceptance.mean()) == pytest.approx(target, abs=0.04), warm.step_size
  assert len(warm.acceptance) == 300


def test_dual_averaging_as_the_paper_has_it():
  """Acceptances made up, and equation 6 of Hoffman & Gelman written as a sum."""
  scores = RNG.uniform(size=30)
  fixed = lambda step_size: mc.Kernel(
    lambda x: mc.chain.Position(x),
    lambda key, state: (mc.chain.Position(state.position + 1), mc.Info(jnp.float32(scores)[state.position], None)),
  )
  warm = mc.warm_up(fixed, jax.random.key(0), jnp.zeros(1, jnp.int32), 0.3, 30, target=0.65)
  log_average = 0.0
  for t in range(1, 31):
    log_step = np.log(10 * 0.3) - np.sqrt(t) / 0.05 / (t + 10) * (0.65 - scores[:t]).sum()
    log_average = t**-0.75 * log_step + (1 - t**-0.75) * log_average
  np.testing.assert_allclose(warm.step_size, np.exp(log_average), rtol=1e-3)
  np.testing.assert_allclose(warm.acceptance, scores, rtol=1e-6)


# Diagnostics.


effective_sample_size, split_r_hat = jax.jit(mc.effective_sample_size), jax.jit(mc.split_r_hat)


def autoregressive(rho, length=4000, num_chains=20):
  """Stationary AR(1) with deviation 1, [S, C]."""
  noise = np.random.default_rng(5).normal(size=(length, num_chains))
  x = np.empty_like(noise)
  x[0] = noise[0]
  for t in range(1, length):
    x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * noise[t]
  return jnp.float32(x)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
  """N (1 - rho) / (1 + rho)."""
  x = autoregressive(rho)
  assert float(effective_sample_size(x)) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.1)
  # Chain by chain it is noisier and still right.
  alone = effective_sample_size(x[:, None])
  assert alone.shape == (20,)
  assert np.mean(alone) == pytest.approx(len(x) * (1 - rho) / (1 + rho), rel=0.2)


def test_effective_sample_size_is_geyers_sum_written_out():
  """Short chains, some of them apart: every autocovariance a loop, in float64."""
  x = np.float64(autoregressive(0.7)[:60, :4]) + np.array([0, 0, 0, 0.5])
  deviation = x - x.mean(0)
  covariance = np.array([(deviation[: 60 - lag] * deviation[lag:]).sum(0).mean() / 60 for lag in range(60)])
  within = covariance[0] * 60 / 59
  total = covariance[0] + x.mean(0).var(ddof=1)
  correlation = 1 - (within - covariance) / total
  correlation[0] = 1
  time, least = -1.0, np.inf
  for pair in correlation.reshape(30, 2).sum(1):
    if pair <= 0:
      break
    least = min(least, pair)
    time += 2 * least
  assert 2 < time < 20
  np.testing.assert_allclose(effective_sample_size(jnp.float32(x)), 240 / time, rtol=1e-4)


def test_effective_sample_size_knows_no_units():
  x = autoregressive(0.5)
  many = effective_sample_size(jnp.stack([x, 1000 + 3 * x[::-1]], -1))
  np.testing.assert_allclose(many, effective_sample_size(x), rtol=2e-2)


def test_nothing_is_said_of_draws_that_never_change_or_are_no_numbers():
  """And nothing of theirs spoils what is said of the others."""
  x = autoregressive(0.0)[:1000]
  same, broken = jnp.full_like(x, 0.1), x.at[70, 3].set(jnp.nan)
  values = effective_sample_size(jnp.stack([same, broken, x], -1))
  np.testing.assert_array_equal(np.isnan(values), [True, True, False])


def test_chains_that_disagree_are_worth_little():
  x = autoregressive(0.0)
  apart = x + 3.0 * jnp.arange(20)[None] / 20
  assert effective_sample_size(apart) < 200 < effective_sample_size(x)


def test_split_r_hat():
  """1 for independent draws; above 1.1 for chains apart, and for one chain that drifts."""
  x = autoregressive(0.0)
  assert float(split_r_hat(x)) == pytest.approx(1, abs=0.005)
  assert split_r_hat(x + jnp.where(jnp.arange(20) < 10, 0.0, 2.0)[None]) > 1.1
  assert split_r_hat(x[:, :1] + jnp.linspace(0, 3, len(x))[:, None]) > 1.1
  # Two chains of two halves each, by the formula.
  short = np.float64(x[:100, :2])
  halves = [short[:50, 0], short[:50, 1], short[50:, 0], short[50:, 1]]
  within, between = np.mean([half.var(ddof=1) for half in halves]), np.var([half.mean() for half in halves], ddof=1)
  np.testing.assert_allclose(split_r_hat(x[:100, :2]), np.sqrt((within * 49 / 50 + between) / within), rtol=1e-5)
