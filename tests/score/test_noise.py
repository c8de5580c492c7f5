"""Schedules: their papers' formulas in extended precision, inverses, and what float32 makes of them; gauges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.score import noise
from gm_jax.score.noise import alpha, ratio, sigma

SCHEDULES = {
  "uniform": noise.uniform(),
  "linear": noise.linear(),
  "cosine": noise.cosine(),
  "shifted cosine": noise.cosine(-2.0),
  "sigmoid": noise.sigmoid(),
  "skewed sigmoid": noise.sigmoid(0.0, 3.0, 0.7),
  "Karras": noise.karras(),
  "straight": noise.straight(),
  "straight, shifted": noise.straight(3.0),
}
TABLES = {
  "DDPM": noise.linear_betas(),
  "iDDPM": noise.cosine_betas(),
  "short": noise.linear_betas(10, 1e-3, 0.5),
  "one step": np.array([0.9]),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
each_table = pytest.mark.parametrize("betas", TABLES.values(), ids=TABLES.keys())
# t = 0 and 1 are infinite for some; from one step of a thousand on, and nearer to 0.
TIMES = np.concatenate([[1e-4], np.arange(1, 1000) / 1000, [1 - 1e-4]])


# --- Units ---


def test_alpha_and_sigma_in_extended_precision():
  log_snr = np.linspace(-40, 40, 161)
  exact = np.asarray(log_snr, np.longdouble)
  np.testing.assert_allclose(alpha(log_snr), 1 / np.sqrt(1 + np.exp(-exact)), rtol=1e-14)
  np.testing.assert_allclose(sigma(log_snr), 1 / np.sqrt(1 + np.exp(exact)), rtol=1e-14)
  np.testing.assert_allclose(ratio(log_snr), sigma(log_snr) / alpha(log_snr), rtol=1e-13)
  np.testing.assert_allclose(noise.from_ratio(ratio(log_snr)), log_snr, atol=1e-12)
  for function in (alpha, sigma, ratio):
    np.testing.assert_allclose(function(jnp.asarray(log_snr, jnp.float32)), function(log_snr), rtol=1e-5)


def test_ends_are_exact():
  for xp in (np, jnp):
    ends = xp.asarray([-np.inf, np.inf])
    np.testing.assert_array_equal(alpha(ends), [0, 1])
    np.testing.assert_array_equal(sigma(ends), [1, 0])
    np.testing.assert_array_equal(ratio(ends), [np.inf, 0])
    np.testing.assert_array_equal(noise.from_ratio(xp.asarray([0.0, np.inf])), [np.inf, -np.inf])


def test_diffuse_reads_each_rows_own_level():
  """q(x | x_0) = N(alpha x_0, sigma^2), a level for each example or one for all."""
  log_snr = np.array([-20.0, 0.5, 20.0])
  ones, zeros = jnp.ones((3, 2, 1)), jnp.zeros((3, 2, 1))
  levels = jnp.asarray(log_snr, jnp.float32)
  np.testing.assert_allclose(noise.diffuse(ones, levels, zeros)[:, 1, 0], alpha(log_snr), rtol=1e-6)
  np.testing.assert_allclose(noise.diffuse(zeros, levels, ones)[:, 0, 0], sigma(log_snr), rtol=1e-6)
  np.testing.assert_allclose(noise.diffuse(zeros, levels[1], ones), np.full((3, 2, 1), sigma(0.5)), rtol=1e-6)


@pytest.mark.parametrize("log_snr", [-20.0, -1.0, 3.0, 20.0])
def test_gauges_are_the_papers_units(log_snr):
  """Multiplied by its gauge, alpha x_0 + sigma eps has the paper's two coefficients."""
  a, s = alpha(log_snr), sigma(log_snr)
  for gauge, of_image, of_noise in (
    (noise.variance_preserving, a, s),
    (noise.variance_exploding, 1.0, s / a),
    (noise.rectified_flow, a / (a + s), s / (a + s)),
  ):
    np.testing.assert_allclose([gauge(log_snr) * a, gauge(log_snr) * s], [of_image, of_noise], rtol=1e-12)
    np.testing.assert_allclose(gauge(jnp.float32(log_snr)), gauge(log_snr), rtol=1e-5)


# --- Schedules ---


@each_schedule
def test_time_is_the_inverse_and_log_snr_falls(schedule):
  log_snr = schedule.log_snr(TIMES)
  assert np.all(np.diff(log_snr) < 0)
  np.testing.assert_allclose(schedule.time(log_snr), TIMES, rtol=1e-8, atol=1e-12)


@each_schedule
def test_float32_is_as_good_as_its_digits(schedule):
  """On the device, up to both ends: the error of log SNR stays below a thousandth, that of time below a part in a million."""
  times = TIMES.astype(np.float32)
  exact = schedule.log_snr(times.astype(np.float64))
  log_snr = jax.jit(schedule.log_snr)(jnp.asarray(times))
  np.testing.assert_allclose(log_snr, exact, atol=1e-3)
  back = jax.jit(schedule.time)(jnp.asarray(exact, jnp.float32))
  np.testing.assert_allclose(back, times, rtol=1e-4, atol=2e-6)


def test_published_formulas():
  """alpha^2, or sigma / alpha, as each paper writes it, in extended precision."""
  t = np.asarray(TIMES, np.longdouble)
  squared = lambda schedule: alpha(schedule.log_snr(TIMES)) ** 2
  np.testing.assert_allclose(squared(noise.linear(0.1, 20)), np.exp(-(0.1 * t + 19.9 * t**2 / 2)), rtol=1e-10)
  lowest, highest = noise.cosine(), noise.cosine(0.0, 700.0, -700.0)  # hardly cut
  np.testing.assert_allclose(squared(highest), np.cos(np.pi / 2 * t) ** 2, rtol=1e-9, atol=1e-12)
  assert np.ptp(lowest.log_snr(np.array([0.0, 1.0]))) == pytest.approx(30, abs=1e-9)
  start, end, temperature = -3, 3, 0.9
  curve = lambda z: 1 / (1 + np.exp(-z / temperature))
  jabri = (curve(end) - curve(t * (end - start) + start)) / (curve(end) - curve(start))
  np.testing.assert_allclose(squared(noise.sigmoid(start, end, temperature)), jabri, atol=2e-6)
  karras = (0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
  np.testing.assert_allclose(ratio(noise.karras().log_snr(TIMES)), karras, rtol=1e-10)
  for shift in (1.0, 3.0):
    moved = shift * t / (1 + (shift - 1) * t)  # Esser et al. 2024, equation 23
    np.testing.assert_allclose(ratio(noise.straight(shift).log_snr(TIMES)), moved / (1 - moved), rtol=1e-10)
  np.testing.assert_allclose(noise.uniform(12, -8).log_snr(TIMES), 12 - 20 * TIMES, rtol=1e-12)


def test_a_shift_of_cosine_is_a_shift_of_log_snr():
  """Simple diffusion, equation 4: the noise of an image averaged down."""
  free = dict(highest=500.0, lowest=-500.0)
  times = np.linspace(0.01, 0.99, 50)
  shifted = noise.cosine(2 * np.log(64 / 256), **free).log_snr(times)
  np.testing.assert_allclose(shifted - noise.cosine(**free).log_snr(times), 2 * np.log(64 / 256), atol=1e-9)


def test_ends_of_the_clock():
  for schedule, start, end in (
    (noise.uniform(7, -5), 7, -5),
    (noise.cosine(1.0, 9, -11), 9, -11),
    (noise.karras(0.1, 10), -2 * np.log(0.1), -2 * np.log(10)),
    (noise.straight(), np.inf, -np.inf),
    (noise.sigmoid(floor=1e-4), np.log(1e4 - 1), -np.log(1e4 - 1)),
  ):
    np.testing.assert_allclose(schedule.log_snr(np.array([0.0, 1.0])), [start, end], rtol=1e-9)
    np.testing.assert_allclose(jax.jit(schedule.log_snr)(jnp.array([0.0, 1.0])), [start, end], rtol=1e-3)


def test_impossible_schedules_are_refused():
  for make in (
    lambda: noise.uniform(-1, 1),
    lambda: noise.linear(2, 1),
    lambda: noise.karras(0),
    lambda: noise.karras(2, 1),
    lambda: noise.straight(0),
    *(lambda betas=betas: noise.discrete(betas) for betas in ([], [0.1, 0.0], [0.1, 1.0], [-0.1], [np.nan], [[0.1]])),
  ):
    with pytest.raises(UserError):
      make()


# --- Tables ---


@each_table
def test_tables_agree_with_extended_precision(betas):
  alphas_bar = np.cumprod(1 - np.asarray(betas, np.longdouble))
  schedule, count = noise.discrete(betas), len(betas)
  times = np.arange(1, count + 1) / count
  log_snr = schedule.log_snr(times)
  np.testing.assert_allclose(log_snr, np.log(alphas_bar / (1 - alphas_bar)), rtol=1e-10, atol=1e-10)
  np.testing.assert_allclose(alpha(log_snr) ** 2, alphas_bar, rtol=1e-11)
  np.testing.assert_allclose(sigma(log_snr) ** 2, 1 - alphas_bar, rtol=1e-11)
  assert np.all(np.diff(log_snr) < 0)
  np.testing.assert_allclose(schedule.time(log_snr), times, rtol=1e-12)
  assert schedule.num_steps == count
  on_device = jax.jit(schedule.log_snr)(jnp.asarray(times, jnp.float32))
  np.testing.assert_allclose(on_device, log_snr, rtol=1e-5, atol=1e-4)


def test_published_tables():
  np.testing.assert_allclose(noise.linear_betas(), [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)], rtol=1e-12)
  t = np.arange(1001, dtype=np.longdouble) / 1000
  curve = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(noise.cosine_betas(), np.minimum(1 - curve[1:] / curve[:-1], 0.999), rtol=1e-9)


@pytest.mark.parametrize("betas", [TABLES["DDPM"], TABLES["iDDPM"]], ids=["DDPM", "iDDPM"])
def test_zero_terminal_is_lins_algorithm(betas):
  """Nothing of the image is left at the end, all is as before at the start, and between sqrt(alpha_bar) is stretched evenly."""
  old = np.sqrt(np.cumprod(1 - np.asarray(betas, np.longdouble)))
  new = alpha(noise.zero_terminal(betas))
  assert new[-1] == 0
  np.testing.assert_allclose(new[0], old[0], rtol=1e-12)
  np.testing.assert_allclose(np.diff(new) / np.diff(old), old[0] / (old[0] - old[-1]), rtol=1e-6)
