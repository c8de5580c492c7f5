"""Levels against quadrature over all latents, each rate against the draws that it is the mean of, and steps left out."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import core, images, testing
from gm_jax.approximate import hierarchical_vae as hvae
from gm_jax.approximate import vae
from gm_jax.distributions import kl_to_standard_normal
from gm_jax.networks.ladder import ConvBlock, ConvLadder, ConvReadout, DenseBlock, DenseLadder, DenseReadout, enlarged

SHAPE = (2, 2, 1)
PICTURES = np.asarray(images.from_levels(testing.all_states(SHAPE, 2), 2))
BATCH = {"image": PICTURES}


def ladder(num_levels):
  block = lambda features: DenseBlock(features, 8)
  levels = [hvae.Level(1, 6, block, top=index == 0) for index in range(num_levels)]
  return hvae.HierarchicalVAE(DenseLadder((7,) * num_levels), levels, DenseReadout(8, SHAPE), vae.bernoulli())


@functools.cache
def made(num_levels):
  """(module, variables): at random parameters, so that no level is idle."""
  module = ladder(num_levels)
  model = hvae.hierarchical_vae(module, optax.adam(1e-3))
  state = jax.eval_shape(model.init, jax.random.key(0), BATCH)
  rng = np.random.default_rng(0)
  draw = lambda leaf: np.float32(rng.normal(size=leaf.shape) * (0.9 if leaf.ndim < 2 else 1 / np.sqrt(leaf.shape[0])))
  return module, jax.tree.map(draw, state.average.variables)


def bound(num_levels, key, batch=BATCH, train=False, **options):
  module, variables = made(num_levels)
  run = lambda key: nn.apply(lambda m: hvae.negative_elbo(**options)(m, key, batch, train), module)(variables)
  return jax.jit(run)(key)


@functools.cache
def exact(num_levels):
  """log p(x) of every image by the trapezoid rule over one or two latents, in float64."""
  module, variables = made(num_levels)
  nodes = np.linspace(-9, 9, 181, dtype=np.float32)
  grid = np.stack(np.meshgrid(*[nodes] * num_levels, indexing="ij"), -1).reshape(-1, num_levels)
  log_normal = lambda z, mean, log_var: -0.5 * (np.log(2 * np.pi) + log_var + (z - mean) ** 2 / np.exp(log_var))

  def law(module):
    """Logits of the image, and mean and log-variance of each level's prior at the grid's latents."""
    priors = []

    def choose(index, level, context):
      mean, log_var, context = level.prior(context, False)
      priors.append((mean.ravel(), log_var.ravel()))
      return jnp.asarray(grid[:, index]).reshape(-1, 1, 1, 1), context

    return module.down(len(grid), choose, False), priors

  logits, priors = jax.jit(nn.apply(law, module))(variables)
  logits = np.asarray(logits, np.float64).reshape(-1, 4)
  log_prior = sum(log_normal(grid[:, i].astype(float), *map(np.asarray, prior)) for i, prior in enumerate(priors))
  log_prior += num_levels * np.log(nodes[1] - nodes[0])
  assert abs(np.logaddexp.reduce(log_prior)) < 1e-4
  x = PICTURES.reshape(-1, 4) / 255.0
  log_likelihood = x @ logits.T - np.logaddexp(0, logits).sum(1)[None]
  return np.logaddexp.reduce(log_likelihood + log_prior[None], axis=1)


def weights(num_levels, num):
  module, variables = made(num_levels)
  x = PICTURES / np.float32(255)
  return np.asarray(jax.jit(nn.apply(lambda m: hvae.log_weights(m, jax.random.key(3), x, num), module))(variables), np.float64)


@pytest.mark.parametrize("num_levels", [1, 2])
def test_importance_samples_find_log_p(num_levels):
  log_w = weights(num_levels, 20_000)
  estimate = np.logaddexp.reduce(log_w, 1) - np.log(log_w.shape[1])
  relative = np.exp(log_w - estimate[:, None]).std(1) / np.sqrt(log_w.shape[1])
  assert (abs(estimate - exact(num_levels)) < 5 * relative + 1e-3).all()
  assert abs(np.logaddexp.reduce(exact(num_levels))) < 1e-3  # all images together


@pytest.mark.parametrize("num_levels", [1, 2])
def test_the_bound_is_the_mean_log_weight_and_below_log_p(num_levels):
  """So the closed divergences of all levels are those of the draws."""
  draws = 400
  repeated = {"image": PICTURES.repeat(draws, 0)}
  losses, parts = bound(num_levels, jax.random.key(5), repeated)
  losses = np.asarray(losses, np.float64).reshape(-1, draws)
  log_w = weights(num_levels, 20_000)
  error = np.hypot(losses.std(1) / np.sqrt(draws), log_w.std(1) / np.sqrt(log_w.shape[1]))
  assert (abs(-losses.mean(1) - log_w.mean(1)) < 5 * error + 1e-3).all()
  assert (-losses.mean(1) < exact(num_levels) + 5 * error).all()
  np.testing.assert_allclose(parts["rate"], sum(parts[f"rate_{level + 1}"] for level in range(num_levels)), rtol=1e-5)


def test_the_measure_reports_log_p_and_the_bound():
  module, variables = made(2)
  state = core.State(None, core.Average(variables, jnp.zeros((), jnp.int32)))
  scores = jax.jit(hvae.measure(module, 400))(jax.random.key(0), state, BATCH)
  error = 5 * np.asarray(scores["nll_stderr"]) + 1e-3
  assert (abs(-scores["nll"] - exact(2)) < error).all()
  np.testing.assert_allclose(scores["nll_bound"], scores["distortion"] + scores["rate"], rtol=1e-6)
  assert (scores["ess"] <= 400.1).all()


def test_one_level_is_a_vae():
  """The same posterior, noise and decoder by the VAE's formula."""
  module, variables = made(1)
  key = jax.random.key(2)
  losses, parts = bound(1, key)

  def by_hand(module):
    data_key, latent_key = jax.random.split(key)
    x = module.likelihood.observe(data_key, PICTURES)
    level, context = module.levels[0], jnp.broadcast_to(module.start[None], (16, 1, 1, 6))
    mean, log_var = level.posterior(context, module.encoder(x, False)[0], False)
    z = vae.reparameterize(jax.random.fold_in(latent_key, 0), mean, log_var)
    outputs = module.decoder(level.merge(context, z, False), False)
    rate = kl_to_standard_normal(mean.reshape(16, -1), log_var.reshape(16, -1))
    return -module.likelihood.log_prob(outputs, x), rate

  distortion, rate = jax.jit(nn.apply(by_hand, module))(variables)
  np.testing.assert_allclose(parts["distortion"], distortion, rtol=1e-5)
  np.testing.assert_allclose(parts["rate"], rate, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(losses, distortion + rate, rtol=1e-5)


def test_weights_on_the_rate_are_for_training_alone():
  key = jax.random.key(1)
  plain, parts = bound(2, key)
  np.testing.assert_array_equal(bound(2, key, beta=0.1, free_nats=50.0)[0], plain)
  trained, same = bound(2, key, train=True, beta=0.1, free_nats=50.0)
  np.testing.assert_allclose(trained, parts["distortion"] + 0.1 * 100, rtol=1e-5)
  np.testing.assert_allclose(same["rate"], parts["rate"], rtol=1e-5)


def test_samples_are_the_models():
  """The mean of many samples' pixels is their probability, summed over all images."""
  module, variables = made(2)
  drawn = jax.jit(nn.apply(lambda m: hvae.sample(m, jax.random.key(0), 40_000), module))(variables)
  expected = np.exp(exact(2)) @ (PICTURES.reshape(16, 4) / 255)
  np.testing.assert_allclose(np.asarray(drawn).reshape(-1, 4).mean(0) / 255, expected, atol=0.01)


def test_levels_of_several_sizes_reach_the_image():
  """A convolutional ladder of three levels on two sizes: all levels matter, and rates are those of whole maps."""
  block = lambda features: ConvBlock(features, 4)
  levels = [hvae.Level(2, 8, block, top=index == 0) for index in range(3)]
  module = hvae.HierarchicalVAE(
    ConvLadder((2, 2, 4), 8, 4), levels, ConvReadout((8, 8, 1), 4), vae.bernoulli(), (2, 2), ((2, 2), (4, 4), (4, 4))
  )
  batch = {"image": np.random.default_rng(0).integers(0, 2, (3, 8, 8, 1)).astype(np.uint8) * 255}
  model = hvae.hierarchical_vae(module, optax.adam(1e-3))
  state = jax.jit(model.init)(jax.random.key(0), batch)
  _, metrics = jax.jit(model.step)(jax.random.key(0), state, batch)
  assert all(metrics[f"rate_{level}"] > 0 for level in (1, 2, 3))
  loss = lambda params: nn.apply(lambda m: hvae.negative_elbo()(m, jax.random.key(0), batch, True)[0].mean(), module)(
    {"params": params}
  )
  gradient = jax.jit(jax.grad(loss))(jax.tree.map(lambda leaf: leaf + 0.05, state.net.params))
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_sizes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="4 x 4 .* 6 x 8"):
    enlarged(np.zeros((1, 4, 4, 1)), np.zeros((1, 6, 8, 1)))
  with pytest.raises(ValueError, match=r"\(3,\)"):
    ConvLadder((3,), 4, 4).init(jax.random.key(0), np.zeros((1, 8, 8, 1)), False)


def test_a_large_gradient_is_left_out_and_the_optimiser_does_not_see_it():
  optimizer = hvae.skipping(optax.adam(0.1), threshold=1.0, patience=3)
  params = {"a": jnp.ones(2)}
  state = optimizer.init(params)
  updates, after = optimizer.update({"a": jnp.full(2, 100.0)}, state, params)
  assert (updates["a"] == 0).all()
  assert all((a == b).all() for a, b in zip(jax.tree.leaves(after.inner), jax.tree.leaves(state.inner)))
  assert (after.in_a_row, after.in_all) == (1, 1)
  small = {"a": jnp.full(2, 0.5)}
  updates, after = optimizer.update(small, after, params)
  expected, _ = optax.adam(0.1).update(small, optax.adam(0.1).init(params), params)
  np.testing.assert_array_equal(updates["a"], expected["a"])
  assert (after.in_a_row, after.in_all) == (0, 1)


def test_skipping_cannot_freeze():
  """Gradients that stay large: left out three times, then seen at the threshold's length, and the minimum is reached."""
  optimizer = hvae.skipping(optax.sgd(0.5), threshold=1.0, patience=3)
  params, moved = jnp.array(50.0), []
  state = optimizer.init(params)
  for _ in range(110):
    updates, state = optimizer.update(2 * params, state, params)
    moved.append(float(updates))
    params = optax.apply_updates(params, updates)
  assert moved[:3] == [0, 0, 0]
  assert moved[3] == pytest.approx(-0.5)
  assert abs(float(params)) < 0.6
  nothing, state = optimizer.update(jnp.array(jnp.nan), state._replace(in_a_row=jnp.array(9)), params)
  assert float(nothing) == 0
