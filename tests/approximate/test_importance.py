"""Importance weighted bounds where log p(x) is known, and gradients against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.approximate import importance, vae
from gm_jax.core import run
from tests.approximate import linear

BATCH = linear.batch(6)
OBJECTIVES = {
  "iwae": importance.iwae(6),
  "miwae": importance.miwae(2, 3),
  "ciwae": importance.ciwae(0.3, 6),
  "piwae": importance.piwae(2, 3),
  "stl": importance.sticking_the_landing(6),
  "dreg": importance.doubly_reparameterized(6),
}
names = pytest.mark.parametrize("name", OBJECTIVES)


@functools.partial(jax.jit, static_argnums=0)
def losses(objective, key, variables):
  return run(linear.MODULE, objective, variables, key, BATCH, train=True)[0][0]


@functools.partial(jax.jit, static_argnums=0)
def gradient(objective, key, variables):
  mean_loss = lambda params: run(linear.MODULE, objective, {"params": params}, key, BATCH, train=True)[0][0].mean()
  return jax.grad(mean_loss)(variables["params"])


def log_weights_of(key, variables, num):
  """log w [B, num] of the very draws that an objective makes of this key."""

  def weights(model, key, train):
    _, latent_key = jax.random.split(key)
    x = BATCH["image"]
    mean, log_var = model.encode(x, train)
    z = vae.draws(latent_key, mean, log_var, num)
    return vae.log_weights(model, z, x, None, mean, log_var, train)

  return run(linear.MODULE, weights, variables, key, train=True)[0]


def assert_close(ours, theirs, tolerance=1e-4):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@names
def test_with_the_exact_posterior_every_bound_is_log_p(name):
  np.testing.assert_allclose(-losses(OBJECTIVES[name], jax.random.key(0), linear.exact()), linear.log_prob(BATCH), atol=1e-4)


def test_bounds_are_their_formulas():
  key, variables = jax.random.key(1), linear.off()
  log_w = np.asarray(log_weights_of(key, variables, 6), np.float64)
  log_mean = lambda log_w, axis: np.log(np.exp(log_w).mean(axis))
  every, grouped = log_mean(log_w, 1), log_mean(log_w.reshape(6, 2, 3), 2).mean(1)
  mixed = 0.3 * log_w.mean(1) + 0.7 * every
  expected = {"iwae": every, "miwae": grouped, "ciwae": mixed, "piwae": every, "stl": every, "dreg": every}
  for name, objective in OBJECTIVES.items():
    np.testing.assert_allclose(-losses(objective, key, variables), expected[name], rtol=1e-4, err_msg=name)


def test_more_draws_are_a_tighter_bound_on_average_over_subsets_of_the_same_draws():
  """log mean over K is at least the mean of log mean over its halves, whatever was drawn (Burda et al. 2016, theorem 1)."""
  key, variables = jax.random.key(2), linear.off()
  bound = lambda groups, num: -losses(importance.miwae(groups, num), key, variables)
  one, two, four, eight = bound(8, 1), bound(4, 2), bound(2, 4), bound(1, 8)
  np.testing.assert_array_less(one, two)
  np.testing.assert_array_less(two, four)
  np.testing.assert_array_less(four, eight)


def test_one_draw_is_the_elbo_on_average():
  """K = 1 against the closed form of E_q[log p(x | z)] - KL, to the standard error of 20,000 draws."""
  variables = linear.off()
  log_w = np.asarray(jax.jit(log_weights_of, static_argnums=2)(jax.random.key(3), variables, 20_000), np.float64)
  kernel, bias = (np.asarray(variables["params"]["posterior"][name], np.float64) for name in ("kernel", "bias"))
  x = np.asarray(BATCH["image"], np.float64).reshape(-1, 3)
  mean, log_var = np.split(x @ kernel + bias, 2, axis=1)
  missed = ((x - mean @ linear.LOADINGS.T - linear.MEAN) ** 2).sum(1) + np.exp(log_var) @ (linear.LOADINGS**2).sum(0)
  elbo = -1.5 * np.log(2 * np.pi * linear.NOISE) - missed / (2 * linear.NOISE)
  elbo -= 0.5 * (np.exp(log_var) - 1 - log_var + mean**2).sum(1)
  z_scores = (log_w.mean(1) - elbo) / (log_w.std(1) / np.sqrt(20_000))
  assert np.abs(z_scores).max() < 4.5


def test_the_gradient_is_the_weighted_form():
  """d log mean w = sum_k (w_k / sum w) d log w_k (Burda et al. 2016)."""
  key, variables = jax.random.key(4), linear.off()

  def weighted(params):
    log_w = log_weights_of(key, {"params": params}, 6)
    return -(jax.lax.stop_gradient(jax.nn.softmax(log_w, 1)) * log_w).sum(1).mean()

  assert_close(gradient(OBJECTIVES["iwae"], key, variables), jax.jit(jax.grad(weighted))(variables["params"]))


def test_two_heads_learn_by_two_bounds():
  """piwae: the decoder's gradient is iwae's and the encoder's is miwae's, to the digit, from the same draws."""
  key, variables = jax.random.key(5), linear.off()
  every, grouped, both = (gradient(OBJECTIVES[name], key, variables) for name in ("iwae", "miwae", "piwae"))
  assert_close(both["decoder"], every["decoder"])
  assert_close(both["posterior"], grouped["posterior"])
  for part in ("decoder", "posterior"):  # two bounds indeed
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), every[part], grouped[part])
    assert max(jax.tree.leaves(apart)) > 1e-2


@pytest.mark.parametrize("name", ["stl", "dreg"])
def test_the_path_alone_has_no_noise_at_the_exact_posterior(name):
  key, variables = jax.random.key(6), linear.exact()
  quiet, noisy = gradient(OBJECTIVES[name], key, variables), gradient(OBJECTIVES["iwae"], key, variables)
  assert_close(quiet["decoder"], noisy["decoder"])
  assert float(jnp.abs(quiet["posterior"]["bias"]).max()) < 1e-4
  assert float(jnp.abs(noisy["posterior"]["bias"]).max()) > 1e-2


@pytest.mark.parametrize(("name", "reference"), [("dreg", "iwae"), ("stl-1", "iwae-1")])
def test_the_path_alone_has_the_same_gradient_on_average(name, reference):
  objectives = {**OBJECTIVES, "stl-1": importance.sticking_the_landing(1), "iwae-1": importance.iwae(1)}
  keys = jax.random.split(jax.random.key(7), 3000)
  of = lambda name: jax.jit(jax.vmap(lambda key: gradient(objectives[name], key, linear.off())["posterior"]["kernel"]))(keys)
  ours, theirs = np.asarray(of(name), np.float64), np.asarray(of(reference), np.float64)
  difference = ours - theirs  # paired: the same draws
  stderr = difference.std(0) / np.sqrt(len(keys))
  assert (np.abs(difference.mean(0)) < 4.5 * stderr + 1e-6).all()
  assert (np.abs(theirs.mean(0)) > 4.5 * stderr).any()  # there is a gradient to agree on


@names
def test_evaluation_is_the_plain_bound(name):
  plain = vae.vae(linear.MODULE, optax.sgd(0.1))
  other = vae.vae(linear.MODULE, optax.sgd(0.1), objective=OBJECTIVES[name])
  state = jax.jit(plain.init)(jax.random.key(0), BATCH)
  ours, theirs = (jax.jit(model.evaluate)(jax.random.key(1), state, BATCH) for model in (other, plain))
  for part in ("nll_bound", "distortion", "rate"):
    np.testing.assert_array_equal(ours[part], theirs[part])
