"""DDPM and DDIM against what is known exactly when the data are Gaussian.

For x_0 ~ N(mean, std^2) everything has a closed form, in one dimension and so in all: x_t ~ N(signal_t mean, V_t) with
V_t = signal_t^2 std^2 + noise_t^2, and the best guess of the noise is noise_t (x_t - signal_t mean) / V_t.  It is linear in
x_t, so the walk back stays Gaussian and its mean and variance follow exactly, in float64, from a sampler's numbers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import sampling
from gm_jax.errors import UserError
from gm_jax.score import ddpm
from gm_jax.score.ddpm import ancestral_steps, cosine, ddim_steps, evenly, large, linear, small

SCHEDULES = {"linear": linear(), "cosine": cosine(), "short": linear(10, 1e-3, 0.5), "one step": ddpm.from_betas([0.9])}
LINEAR = SCHEDULES["linear"]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def marginal(schedule, t, mean, std):
  """Mean and variance of q(x_t)."""
  return schedule.signal[t] * mean, schedule.alphas_bar[t] * std**2 + schedule.noise[t] ** 2


def walk(schedule, steps, mean, std, start):
  """Mean and variance of a sampler's x at every time it visits, under the best guess; `start` is (mean, variance) at T."""
  visited = [start]
  for t, keep, remove, add in zip(*steps):
    centre, total = marginal(schedule, t, mean, std)
    m, v = visited[-1]
    slope = remove * schedule.noise[t] / total
    visited.append((keep * m - slope * (m - centre), (keep - slope) ** 2 * v + add**2))
  return np.array(visited).T


# --- Schedules ---


@each_schedule
def test_tables_agree_with_extended_precision(schedule):
  betas = np.asarray(schedule.betas[1:], np.longdouble)
  alphas_bar = np.cumprod(1 - betas)
  np.testing.assert_allclose(schedule.alphas_bar[1:], alphas_bar, rtol=1e-12)
  np.testing.assert_allclose(schedule.noise[1:] ** 2, 1 - alphas_bar, rtol=1e-11)
  np.testing.assert_allclose(schedule.log_snr[1:], np.log(alphas_bar / (1 - alphas_bar)), rtol=1e-10, atol=1e-10)
  np.testing.assert_allclose(schedule.signal**2 + schedule.noise**2, 1, rtol=1e-14)
  assert np.all(np.diff(schedule.alphas_bar) < 0)
  assert np.all(np.diff(schedule.noise) > 0)
  assert (schedule.alphas_bar[0], schedule.noise[0], schedule.betas[0]) == (1, 0, 0)


def test_papers_schedules():
  np.testing.assert_allclose(LINEAR.betas[1:], np.linspace(1e-4, 0.02, 1000), rtol=1e-12)
  t = np.arange(1000)
  squared_cosine = lambda t: np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(cosine().alphas_bar[t], squared_cosine(t) / squared_cosine(0), rtol=1e-9)
  np.testing.assert_allclose(cosine().betas[-1], 0.999, rtol=1e-12)


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [-0.1, 0.1], [0.1, np.nan]])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_impossible_schedules_are_refused(betas):
  with pytest.raises(UserError):
    ddpm.from_betas(betas)


# --- Training ---


class Guess(nn.Module):
  """The best guess for N(mean, std^2), shifted by a parameter that is 0 at the optimum."""

  schedule: ddpm.Schedule
  mean: float
  std: float

  @nn.compact
  def __call__(self, x_t, time, label, train):
    shift = self.param("shift", nn.initializers.zeros, ())
    time = time.astype(jnp.int32).reshape(-1, 1, 1, 1)
    signal, noise = (jnp.asarray(table, jnp.float32)[time] for table in (self.schedule.signal, self.schedule.noise))
    return noise * (x_t - signal * self.mean) / (signal**2 * self.std**2 + noise**2) + shift


def gaussian_model(schedule, mean, std, sampler=None, shape=(1, 1, 2)):
  network = Guess(schedule, mean, std)
  points = lambda x: x
  return ddpm.ddpm(network, optax.sgd(0.1), image_shape=shape, schedule=schedule, sampler=sampler, to_images=points)


@pytest.mark.parametrize("name", ["linear", "short"])
def test_noise_of_a_point_mass_is_guessed_exactly(name):
  """One picture in the data: x_t tells the noise.  So what was added to x_0 and what the guess is held against are the same."""
  key = jax.random.key(0)
  model = gaussian_model(SCHEDULES[name], 0.7, 0.0)
  batch = {"image": np.full((2000, 1, 1, 2), 0.7, np.float32)}
  losses = model.evaluate(key, model.init(key, batch), batch)["denoising"]
  # x_t is rounded to 2^-24 and the guess divides by noise_t.
  assert losses.shape == (2000,)
  assert losses.max() < (1e-6 / SCHEDULES[name].noise[1]) ** 2


@pytest.mark.parametrize("name", ["linear", "short"])
def test_loss_of_the_best_guess_is_its_closed_form(name):
  """E[(eps - eps*)^2 | t] = signal^2 std^2 / V_t, averaged over t = 1 ... T; and a shift of the guess costs its square."""
  schedule, mean, std = SCHEDULES[name], 0.3, 0.5
  data = mean + std * np.random.default_rng(0).standard_normal((2**15, 1, 1, 2)).astype(np.float32)
  model = gaussian_model(schedule, mean, std)
  state = model.init(jax.random.key(0), {"image": data})
  shifted = state._replace(average=state.average._replace(variables={"params": {"shift": jnp.float32(0.4)}}))
  t = np.arange(1, schedule.num_steps + 1)
  best = np.mean(schedule.alphas_bar[t] * std**2 / marginal(schedule, t, mean, std)[1])
  for some_state, closed_form in ((state, best), (shifted, best + 0.4**2)):
    losses = np.asarray(model.evaluate(jax.random.key(1), some_state, {"image": data})["denoising"], np.float64)
    assert abs(losses.mean() - closed_form) < 4 * losses.std() / np.sqrt(len(losses))


@each_schedule
def test_diffuse_reads_each_rows_own_time(schedule):
  """q(x_t | x_0) = N(signal_t x_0, noise_t^2), to float32's precision at both ends of the tables."""
  t = np.unique([1, schedule.num_steps // 2 + 1, schedule.num_steps])
  ones, zeros = jnp.ones((len(t), 2, 2, 1)), jnp.zeros((len(t), 2, 2, 1))
  np.testing.assert_allclose(ddpm.diffuse(schedule, ones, t, zeros)[:, 0, 0, 0], schedule.signal[t], rtol=1e-6)
  np.testing.assert_allclose(ddpm.diffuse(schedule, zeros, t, ones)[:, 1, 1, 0], schedule.noise[t], rtol=1e-6)


# --- Algorithm 2 ---


@each_schedule
@pytest.mark.parametrize("num_steps", [1, 3, 7, None])
@pytest.mark.parametrize("variance", [small, large])
def test_ancestral_walk_is_the_closed_form_chain(schedule, num_steps, variance):
  """At every step: E[x_s | x_t] is q(x_s | x_t, x_0) of equation 7 with x_0 guessed, and the variance is the one asked for."""
  mean, std = 0.6, 0.4
  times = evenly(schedule.num_steps, min(num_steps or schedule.num_steps, schedule.num_steps))
  m, v = 0.0, 1.0
  expected = [(m, v)]
  for t, s in zip(times[:-1], times[1:]):
    ab_t, ab_s = schedule.alphas_bar[t], schedule.alphas_bar[s]
    # alpha_bar_t over alpha_bar_s is the "alpha" of the joined step; equation 7 in mean and slope of x_0's posterior mean.
    alpha, total = ab_t / ab_s, ab_t * std**2 + 1 - ab_t
    guess_slope = np.sqrt(ab_t) * std**2 / total
    guess = mean + guess_slope * (m - np.sqrt(ab_t) * mean)
    of_x_0, of_x_t = np.sqrt(ab_s) * (1 - alpha) / (1 - ab_t), np.sqrt(alpha) * (1 - ab_s) / (1 - ab_t)
    new = {small: (1 - ab_s) / (1 - ab_t) * (1 - alpha), large: 1 - alpha}[variance]
    m, v = of_x_0 * guess + of_x_t * m, (of_x_0 * guess_slope + of_x_t) ** 2 * v + new * (s > 0)
    expected.append((m, v))
  actual = walk(schedule, ancestral_steps(schedule, times, variance), mean, std, (0.0, 1.0))
  np.testing.assert_allclose(actual, np.array(expected).T, rtol=1e-9, atol=1e-12)


@each_schedule
@pytest.mark.parametrize("std", [0.0, 0.3, 1.0])
def test_the_right_variance_retraces_every_marginal(schedule, std):
  """With the true variance of q(x_s | x_t) (`small`, plus what is unknown of x_0) the walk has q(x_t)'s mean and variance."""

  def true_variance(schedule, t, s):
    unknown = std**2 * schedule.noise[t] ** 2 / marginal(schedule, t, 0.5, std)[1]
    return small(schedule, t, s) + (schedule.signal[s] * schedule.beta(t, s) / schedule.noise[t] ** 2) ** 2 * unknown

  times = evenly(schedule.num_steps, min(13, schedule.num_steps))
  start = marginal(schedule, times[0], 0.5, std)
  actual = walk(schedule, ancestral_steps(schedule, times, true_variance), 0.5, std, start)
  np.testing.assert_allclose(actual[:, :-1], np.array(marginal(schedule, times, 0.5, std))[:, :-1], rtol=1e-9, atol=1e-12)
  # The last step adds none, so it lands on E[x_0 | x_t] and not on a draw.
  last, total = times[-2], marginal(schedule, times[-2], 0.5, std)[1]
  np.testing.assert_allclose(actual[:, -1], (0.5, schedule.alphas_bar[last] * std**4 / total), rtol=1e-9, atol=1e-12)


def test_each_variance_is_right_where_the_paper_says():
  """`small` for a single point and not for N(0, 1); `large` the other way round."""
  times = evenly(1000, 20)
  for variance, std, right in ((small, 0.0, True), (large, 1.0, True), (large, 0.0, False), (small, 1.0, False)):
    mean, start = 0.0, marginal(LINEAR, 1000, 0.0, std)
    _, actual = walk(LINEAR, ancestral_steps(LINEAR, times, variance), mean, std, start)
    exact = marginal(LINEAR, times, mean, std)[1]
    error = np.abs(actual / np.maximum(exact, 1e-30) - 1)[:-1].max()
    assert error < 1e-9 if right else error > 1e-2


# --- DDIM ---


@each_schedule
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_mean_and_variance_step_by_step(schedule, eta):
  """x_s has noise_s^2 of noise whatever eta, the guessed part shrinking as the new part grows (equation 12, Gaussian data)."""
  mean, std = -0.4, 0.8
  times = evenly(schedule.num_steps, min(20, schedule.num_steps))
  m, v = 0.0, 1.0
  expected = [(m, v)]
  for t, s in zip(times[:-1], times[1:]):
    (centre, total), noise = marginal(schedule, t, mean, std), schedule.noise
    fresh = eta * noise[s] / noise[t] * np.sqrt(1 - schedule.alphas_bar[t] / schedule.alphas_bar[s])
    # x_s - signal_s mean = ratio (x_t - signal_t mean) + fresh z; with eta = 0 the ratio is (a_s a_t std^2 + n_s n_t) / V_t.
    ratio = schedule.signal[s] * schedule.signal[t] * std**2 + np.sqrt(noise[s] ** 2 - fresh**2) * noise[t]
    m, v = schedule.signal[s] * mean + ratio / total * (m - centre), (ratio / total) ** 2 * v + fresh**2
    expected.append((m, v))
  actual = walk(schedule, ddim_steps(schedule, times, eta), mean, std, (0.0, 1.0))
  np.testing.assert_allclose(actual, np.array(expected).T, rtol=1e-9, atol=1e-12)


def test_ddim_meets_the_flow_at_first_order():
  """The exact flow keeps (x_t - signal_t mean) / sqrt(V_t); halving the steps doubles DDIM's error."""
  mean, std = 0.5, 0.6
  exact = std / np.sqrt(marginal(LINEAR, 1000, mean, std)[1])
  errors = []
  for num in (125, 250, 500):
    steps = ddim_steps(LINEAR, evenly(1000, num), 0.0)
    errors.append(abs(np.sqrt(walk(LINEAR, steps, mean, std, (0.0, 1.0))[1, -1]) - exact))
  slopes = np.diff(np.log2(errors))
  np.testing.assert_allclose(slopes, -1, atol=0.15)


@each_schedule
@pytest.mark.parametrize("num_steps", [1, 9, 1000])
def test_ddim_with_eta_one_is_ancestral(schedule, num_steps):
  times = evenly(schedule.num_steps, min(num_steps, schedule.num_steps))
  for one, other in zip(ddim_steps(schedule, times, 1.0), ancestral_steps(schedule, times, small)):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


# --- Grids ---


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 50, 999, 1000])
def test_times_tile(num_steps):
  """Every step starts where the last one ended, whether or not the count divides T, and `keep` telescopes to 1 / signal_T."""
  times = evenly(1000, num_steps)
  assert len(times) == num_steps + 1
  assert np.all(np.diff(times) < 0)
  assert np.ptp(np.diff(times)) <= 1
  for steps in (ddim_steps(LINEAR, times, 0.5), ancestral_steps(LINEAR, times, small)):
    np.testing.assert_array_equal(steps.time, times[:-1])
    np.testing.assert_allclose(np.prod(steps.keep), 1 / LINEAR.signal[1000], rtol=1e-12)


@pytest.mark.parametrize("times", [[1000], [999, 0], [1000, 1], [1000, 500, 500, 0], [1000, 1, 2, 0]])
def test_broken_times_are_refused(times):
  with pytest.raises(UserError):
    ddim_steps(LINEAR, times, 0.0)


def test_impossible_samplers_are_refused():
  for make in (lambda: evenly(1000, 0), lambda: evenly(1000, 1001), lambda: ddpm.ddim(eta=1.5), lambda: ddpm.ddim(eta=-0.1)):
    with pytest.raises(UserError):
      make()


# --- The walk itself ---

SAMPLERS = {
  "ancestral": lambda num: ddpm.ancestral(num_steps=num),
  "large": lambda num: ddpm.ancestral(large, num),
  "ddim": lambda num: ddpm.ddim(num),
  "ddim, half new": lambda num: ddpm.ddim(num, eta=0.5),
  "clipped": lambda num: ddpm.clipped(ddpm.ddim(num, eta=1.0)),
}


@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 1000])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_point_mass_is_hit_exactly(sampler, num_steps):
  """Every sampler in any number of steps ends on the one picture there is, no noise left: in the compiled float32 loop."""
  model = gaussian_model(LINEAR, 0.7, 0.0, sampler(num_steps))
  state = model.init(jax.random.key(0), {"image": np.zeros((1, 1, 1, 2), np.float32)})
  x = jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, 5)
  # One step divides by signal_T = 0.006, which multiplies rounding by 160.
  np.testing.assert_allclose(x, np.full((5, 1, 1, 2), 0.7), rtol=1e-4)


def test_walk_is_the_papers_loop_with_fresh_noise_at_each_step():
  """A step that erases x passes on its noise alone: so each one's noise is seen, and all are standard normal and unrelated."""
  num, steps = 4000, 6
  seen = []
  for which in range(steps + 1):  # 0: the start
    keep, add = np.ones(steps), np.zeros(steps)
    if which:
      keep[which - 1], add[which - 1] = 0.0, 1.0
    numbers = ddpm.Steps(np.arange(steps, 0, -1, dtype=np.int32), keep, np.zeros(steps), add)
    seen.append(np.asarray(ddpm.follow(lambda x, t: x, numbers, jax.random.key(0), num, (2,))).ravel())
  covariance = np.cov(seen)
  np.testing.assert_allclose(covariance, np.eye(steps + 1), atol=5 / np.sqrt(2 * num))


def test_drawn_samples_have_the_walks_mean_and_variance():
  """The compiled loop does with random draws what the walk's recursion says in expectation."""
  mean, std, num = 0.5, 0.3, 4096
  for sampler, steps in (
    (ddpm.ancestral(large, 20), ancestral_steps(LINEAR, evenly(1000, 20), large)),
    (ddpm.ddim(20, eta=0.3), ddim_steps(LINEAR, evenly(1000, 20), 0.3)),
  ):
    model = gaussian_model(LINEAR, mean, std, sampler)
    state = model.init(jax.random.key(0), {"image": np.zeros((1, 1, 1, 2), np.float32)})
    x = np.asarray(model.sample(jax.random.key(2), state, num), np.float64).ravel()
    m, v = walk(LINEAR, steps, mean, std, (0.0, 1.0))[:, -1]
    assert abs(x.mean() - m) < 4 * np.sqrt(v / len(x))
    assert abs(x.var() / v - 1) < 4 * np.sqrt(2 / len(x))


def test_clipping_keeps_data_in_range_and_noise_consistent():
  """A wild guess becomes one whose x_0 is in range and which still adds up to x_t; a guess in range is left alone."""
  heard = []

  def listen(predict, schedule, key, num, shape):
    for time in (1, 300, 1000):
      for x_0 in (0.5, 3.0, -2.0):
        noise = 1.3
        x_t = jnp.float32(LINEAR.signal[time] * x_0 + LINEAR.noise[time] * noise)
        heard.append((time, x_0, float(x_t), float(predict(x_t, time))))

  def tell_the_noise(x_t, time):
    return jnp.float32(1.3)

  ddpm.clipped(listen)(tell_the_noise, LINEAR, None, 1, ())
  for time, x_0, x_t, noise in heard:
    again = LINEAR.signal[time] * np.clip(x_0, -1, 1) + LINEAR.noise[time] * noise
    np.testing.assert_allclose(again, x_t, atol=1e-6)
    if abs(x_0) < 1:
      np.testing.assert_allclose(noise, 1.3, rtol=1e-4)


def test_image_i_is_the_same_in_any_company():
  """Images drawn one at a time, in sevens or all at once."""
  model = gaussian_model(LINEAR, 0.2, 0.7, ddpm.ancestral(num_steps=9), shape=(2, 2, 1))
  state = model.init(jax.random.key(0), {"image": np.zeros((1, 2, 2, 1), np.float32)})
  whole = sampling.draw(model, state, seed=3, num=64, batch_size=64)
  for batch_size in (1, 7):
    np.testing.assert_allclose(sampling.draw(model, state, seed=3, num=64, batch_size=batch_size), whole, rtol=1e-5, atol=1e-6)
  assert len(np.unique(whole.round(4), axis=0)) == 64
