"""The best guess itself: by Bayes' rule, in what a network of each kind would say, in what it costs, and turned round."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import random
from gm_jax.score import diffusion, grids, levels, noise, parameterizations, recipes, reflow, solvers
from gm_jax.score.noise import alpha, sigma
from tests.score import gaussian, laws
from tests.score.members import FLOWS, each

KINDS = {
  "noise": parameterizations.noise(),
  "image": parameterizations.image(noise.rectified_flow),
  "velocity": parameterizations.velocity(),
  "flow": parameterizations.flow(),
  "score": parameterizations.score(),
  "karras": parameterizations.karras(0.7),
}
RECIPES = {
  "ddpm": recipes.ddpm(),
  "velocity": recipes.velocity(),
  "edm": recipes.edm(),
  "flow matching": recipes.flow_matching(),
  "ncsn": recipes.ncsn(),
  "variational": recipes.variational(),
}


# --- What it is ---


@pytest.mark.parametrize("log_snr", [-8.0, -2.0, 0.0, 3.0, 7.0])
@pytest.mark.parametrize("law", [((1.0,), (0.5,), (0.6,)), ((0.3, 0.7), (-1.0, 0.8), (0.4, 0.25))], ids=["Gaussian", "mixture"])
def test_it_is_the_mean_of_what_may_have_been(law, log_snr):
  """The tests' own oracles: E[x_0 | x] summed over a fine grid of x_0; and grad log q(x) = (alpha D - x) / sigma^2."""
  denoise = gaussian.mixture(*law) if len(law[0]) > 1 else gaussian.denoiser(law[1][0], law[2][0])
  a, s, x_0 = alpha(log_snr), sigma(log_snr), np.linspace(-5, 5, 20_001)
  prior = sum(share * stats.norm(mean, std).pdf(x_0) for share, mean, std in zip(*law))

  def joint(x):
    return prior[None] * stats.norm.pdf(x[:, None], a * x_0[None], s)

  x, step = np.linspace(-2, 2, 9), 1e-3 * s
  found = denoise(x, log_snr)
  np.testing.assert_allclose(found, joint(x) @ x_0 / joint(x).sum(1), rtol=1e-9, atol=1e-9)
  slope = np.log(joint(x + step).sum(1) / joint(x - step).sum(1)) / (2 * step)
  np.testing.assert_allclose((a * found - x) / s**2, slope, rtol=1e-4, atol=1e-4 / s)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_network_of_each_kind_should_say_is_the_best_guess(name):
  """For N(mean, C) with V = alpha^2 C + sigma^2, by matrices: noise sigma V^-1 (x - alpha mean), and the others from that."""
  denoise, covariance, *_ = laws.correlated()
  mean, chosen, rng = np.array([0.5, -0.3, 0.1]), KINDS[name], np.random.default_rng(1)
  for log_snr in (-6.0, -1.0, 0.0, 2.0, 8.0):
    a, s = alpha(log_snr), sigma(log_snr)
    total = a**2 * covariance + s**2 * np.eye(3)
    x = a * mean + rng.normal(size=(5, 3)) @ np.linalg.cholesky(total).T
    eps = s * np.linalg.solve(total, (x - a * mean).T).T
    best = mean + a / s * eps @ covariance
    gradient = -np.linalg.solve(total, (x - a * mean).T).T  # of log q(x)
    level, std = s / a, 0.7
    said = {
      "noise": eps,
      "image": best,
      "velocity": a * eps - s * best,
      "flow": eps - best,
      "score": s * gradient,
      "karras": (best - std**2 / (level**2 + std**2) * x / a) * np.sqrt(level**2 + std**2) / (level * std),
    }[name]
    at, noisy = jnp.float32(log_snr), jnp.asarray(x, jnp.float32)
    found = chosen.image(noisy, jnp.asarray(said, jnp.float32), at)
    digits = 4e-6 * float(jnp.abs(chosen.skip(at)) + jnp.abs(chosen.out(at)) + 1) * np.abs(x).max()
    np.testing.assert_allclose(found, best, rtol=0, atol=digits)
    np.testing.assert_allclose(denoise(noisy, at), best, rtol=0, atol=2e-5)


# --- What it costs ---


IMAGE = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 4, 1)), jnp.float32)


class Knowing(NamedTuple):
  """Of data that are one image: it sees the noise in x, and says what it was asked for."""

  parameterization: parameterizations.Parameterization
  num_classes = 0

  def output(self, x, log_snr, label, train):
    eps = (x - noise.like(alpha(log_snr), x) * IMAGE[None]) / noise.like(sigma(log_snr), x)
    return self.parameterization.target(jnp.broadcast_to(IMAGE[None], x.shape), eps, log_snr)


@pytest.mark.parametrize("name", RECIPES)
def test_one_image_is_learnt_without_loss(name):
  """The noise in the target is the noise in x, example by example; to a millionth of what the noise of another would cost."""
  recipe = RECIPES[name]._replace(levels=levels.only([0.05, 0.5, 4.0]))
  weight = recipe.weight if name != "variational" else RECIPES["ddpm"].weight  # a bound wants a density of levels
  recipe, batch = recipe._replace(weight=weight), {"image": jnp.broadcast_to(IMAGE[None], (64, *IMAGE.shape))}
  model = Knowing(recipe.parameterization)
  losses, parts = diffusion.denoising(recipe, read=jnp.asarray)(model, jax.random.key(0), batch, True)
  assert parts["noise_error"].max() < 1e-6
  assert losses.max() < 1e-6 * float(recipe.weight(noise.from_ratio(jnp.float32(0.05))))
  couples = {**batch, "noise": random.normal(jax.random.key(1), 64, IMAGE.shape)}
  assert reflow.matching(recipe)(model, jax.random.key(2), couples, True)[1]["image_error"].max() < 2e-5


@pytest.mark.parametrize("std", [0.5, 2.0])
@pytest.mark.parametrize("level", [0.01, 0.5, 3.0, 60.0])
def test_a_network_of_edm_starts_from_a_loss_of_one_at_every_level(std, level):
  """Data N(0, std^2) and a network that says nothing, through the objective; what it is shown has unit variance."""
  num, shown = 2**14, []

  def network(x, number, label, train):
    shown.append(np.asarray(x, np.float64))
    return jnp.zeros_like(x)

  recipe = recipes.edm(std)._replace(levels=levels.only([level]))
  model = diffusion.Denoiser(network, recipe.parameterization).bind({})
  batch = {"image": std * random.normal(jax.random.key(0), num, (1, 1, 1))}
  losses, _ = diffusion.denoising(recipe, read=jnp.asarray)(model, jax.random.key(1), batch, True)
  for found in (np.asarray(losses, np.float64).mean(), shown[-1].var()):
    assert abs(found - 1) < 4.5 * np.sqrt(2 / num)


# --- Turned round ---


@each(FLOWS)
def test_turned_data_have_turned_samples(solver):
  """Of a Gaussian in no direction that is an axis: the flow from R x of the data turned by R ends at R times that from x.

  And where that is, the flow conserves: in each of the covariance's own directions (x - alpha mean) / sqrt(V).
  """
  denoise, covariance, *_ = laws.correlated()
  mean, start = np.array([0.5, -0.3, 0.1]), np.random.default_rng(2).normal(size=(6, 3))
  turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
  turned = laws.gaussian(turn @ mean, turn @ covariance @ turn.T)
  method = solver(grids.in_log_snr(9.0, -6.0, 40, last=None))
  follow = lambda denoise, x: solvers.follow(denoise, method, jnp.asarray(x, jnp.float32), None)
  one, other = jax.jit(lambda: (follow(denoise, start), follow(turned, start @ turn.T)))()
  np.testing.assert_allclose(other, one @ turn.T, rtol=0, atol=1e-4)
  first_order = FLOWS["DDIM"], FLOWS["DPM++ 1"], FLOWS["iPNDM 1"]
  values, vectors = np.linalg.eigh(covariance)
  begin, end = -6.0, 9.0
  root = lambda at: np.sqrt(alpha(at) ** 2 * values + sigma(at) ** 2)
  exact = alpha(end) * mean + ((start - alpha(begin) * mean) @ vectors * (root(end) / root(begin))) @ vectors.T
  np.testing.assert_allclose(one, exact, rtol=0, atol=0.12 if solver in first_order else 0.03)
