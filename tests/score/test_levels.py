"""Which levels are drawn, against their densities; what errors cost, against the papers' own losses; and the two together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from gm_jax.errors import UserError
from gm_jax.score import levels, noise, parameterizations, weights
from gm_jax.score.noise import ratio, sigma
from tests.score import gaussian

CONTINUOUS = {
  "uniform": levels.uniform(noise.uniform(9, -7)),
  "linear": levels.uniform(noise.linear()),
  "cosine": levels.evenly(noise.cosine()),
  "Karras": levels.uniform(noise.karras()),
  "straight": levels.evenly(noise.straight(2.0)),
  "lognormal": levels.lognormal(),
  "logit normal": levels.logit_normal(0.3, 0.8, 3.0),
}
TABLE = noise.discrete(noise.linear_betas(20, 1e-3, 0.4))
each = pytest.mark.parametrize("name", CONTINUOUS)


def drawn(chosen, num, seed=0):
  return np.asarray(jax.jit(chosen.sample, static_argnums=1)(jax.random.key(seed), num))


@each
def test_draws_have_the_density(name):
  """The largest difference of the two distribution functions, Kolmogorov's, in float64 by the trapezoid rule."""
  chosen, num = CONTINUOUS[name], 4096
  x = np.sort(drawn(chosen, num).astype(np.float64))
  at = np.linspace(x[0] - 1e-3, x[-1] + 1e-3, 20001)
  density = np.asarray(jax.jit(chosen.density)(jnp.asarray(at, jnp.float32)), np.float64)
  chance = integrate.cumulative_trapezoid(density, at, initial=0)
  assert abs(chance[-1] - 1) < 0.01
  steps = np.arange(num + 1) / num
  found = np.interp(x, at, chance)
  assert max((found - steps[:-1]).max(), (steps[1:] - found).max()) < 1.95 / np.sqrt(num)  # one in a thousand


def test_logit_normal_is_of_rectified_flows_time():
  """logit(t) is N(0.3, 0.8^2) before the shift, t -> 3 t / (1 + 2 t)."""
  log_snr = drawn(levels.logit_normal(0.3, 0.8, 3.0), 20000).astype(np.float64)
  later = ratio(log_snr) / (1 + ratio(log_snr))
  t = later / (3 - 2 * later)
  logit = np.log(t / (1 - t))
  assert abs(logit.mean() - 0.3) < 4 * 0.8 / np.sqrt(20000)
  assert abs(logit.std() - 0.8) < 4 * 0.8 / np.sqrt(40000)


def test_tables_are_drawn_evenly():
  """Each of T times alike, the first and the last too; `evenly` hits each as often as it can; noise levels likewise."""
  every = TABLE.log_snr(np.arange(1, 21) / 20)
  for chosen, spread in ((levels.uniform(TABLE), 5 * np.sqrt(200)), (levels.evenly(TABLE), 4)):
    counts = np.abs(drawn(chosen, 4000)[:, None] - every).argmin(1)
    np.testing.assert_allclose(np.sort(drawn(chosen, 4000)), np.sort(every[counts]), atol=1e-3)
    np.testing.assert_allclose(np.bincount(counts, minlength=20), 200, atol=spread)
  ratios = np.geomspace(50, 0.01, 10)
  found, counts = np.unique(drawn(levels.only(ratios), 4000), return_counts=True)
  np.testing.assert_allclose(found, np.sort(-2 * np.log(ratios)), rtol=1e-6)
  np.testing.assert_allclose(counts, 400, atol=5 * 20)


def test_row_i_is_its_own_and_keys_matter():
  for chosen in (*CONTINUOUS.values(), levels.uniform(TABLE), levels.only([1.0, 2.0, 0.5, 3.0])):
    whole = drawn(chosen, 64)
    np.testing.assert_allclose(drawn(chosen, 7), whole[:7], rtol=1e-5)
    assert np.any(drawn(chosen, 64, seed=1) != whole)


@pytest.mark.parametrize("num", [8, 100])
def test_evenly_leaves_no_hole(num):
  """Steps of the golden ratio: no gap of the clock is wider than three even ones, where chance leaves some of log(num)."""
  schedule = noise.uniform()
  t = np.sort(schedule.time(drawn(levels.evenly(schedule), num)))
  assert np.diff(t, append=1 + t[0]).max() < 3 / num


def test_ends_of_time_are_finite():
  """Where t = 0 or 1 is infinite, draws stay off it."""
  for schedule in (noise.straight(), noise.linear()):
    assert np.isfinite(drawn(levels.evenly(schedule), 2**15)).all()


def test_refusals():
  for make in (lambda: levels.logit_normal(0, 0), lambda: levels.logit_normal(0, 1, -1)):
    with pytest.raises(UserError):
      make()
  for chosen in (levels.uniform(TABLE), levels.evenly(TABLE), levels.only([1.0])):
    with pytest.raises(UserError, match="density"):
      weights.bound(chosen)(jnp.zeros(3))


# --- Weights ---

AT = np.linspace(-15, 15, 31)
SNR = np.exp(AT)
OUT = {
  "noise": parameterizations.noise(),
  "image": parameterizations.image(),
  "velocity": parameterizations.velocity(),
  "flow": parameterizations.flow(),
}


@pytest.mark.parametrize("kind", OUT)
def test_min_snr_costs_the_same_whatever_is_guessed(kind):
  """Of an error of F the paper's weight is min(SNR, 5) over 1, SNR, SNR + 1 or (sqrt(SNR) + 1)^2: on x_0 it is one."""
  own = {"noise": SNR, "image": 1, "velocity": SNR + 1, "flow": (np.sqrt(SNR) + 1) ** 2}[kind]
  found = weights.min_snr(5.0)(jnp.asarray(AT, jnp.float32)) * OUT[kind].out(jnp.asarray(AT, jnp.float32)) ** 2
  np.testing.assert_allclose(found, np.minimum(SNR, 5) / own, rtol=2e-5)


@pytest.mark.parametrize(
  ("weight", "kind"),
  [(weights.simple, "noise"), (weights.image, "image"), (weights.velocity, "velocity"), (weights.flow, "flow")],
)
def test_each_simple_loss_is_the_plain_error_of_its_kind(weight, kind):
  """weight |D - x_0|^2 = |F - target|^2."""
  levels = jnp.asarray(AT, jnp.float32)
  np.testing.assert_allclose(weight(levels) * OUT[kind].out(levels) ** 2, np.ones_like(AT), rtol=2e-5)


def test_published_weights():
  """Of the squared error of the noise, which is SNR times that of the image."""
  at = jnp.asarray(AT, jnp.float32)
  for weight, expected in (
    (weights.soft_min_snr(4.0), SNR * 4 / (SNR + 4)),
    (weights.perceptual(0.5, 2.0), SNR / (2 + SNR) ** 0.5),
    (weights.karras(0.7), (1 / SNR + 0.49) / (0.49 / SNR)),
    (weights.bound(levels.lognormal(0.0, 1.0)), SNR / 2 * np.exp((AT / 2) ** 2 / 2) * 2 * np.sqrt(2 * np.pi)),
    (weights.sigmoid(2.0, levels.uniform(noise.uniform(20, -20))), SNR / (1 + np.exp(AT - 2)) * 20),
  ):
    np.testing.assert_allclose(weight(at), expected, rtol=3e-5)


@each
def test_the_bound_is_the_same_whatever_is_visited(name):
  """Gaussian data: the mean weighted error of the best guess is half the integral of s^2 / (s^2 + e^g), in closed form.

  Between -4 and 1, which all visit often.  I-MMSE: what the less noisy end tells of x_0 and the other does not.
  """
  std, chosen, low, high = 0.5, CONTINUOUS[name], -4.0, 1.0
  log_snr = drawn(chosen, 2**16).astype(np.float64)
  error = (std * sigma(log_snr)) ** 2 / gaussian.variance(log_snr, std)  # E |D - x_0|^2
  costs = np.asarray(weights.bound(chosen)(jnp.asarray(log_snr, jnp.float32)), np.float64) * error
  costs = np.where((log_snr > low) & (log_snr < high), costs, 0)
  exact = np.log((1 + std**2 * np.exp(high)) / (1 + std**2 * np.exp(low))) / 2
  assert abs(costs.mean() - exact) < 5 * costs.std() / np.sqrt(len(costs))
  assert costs.std() / np.sqrt(len(costs)) < 0.05 * exact
