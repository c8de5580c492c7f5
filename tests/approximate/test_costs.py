"""What is paid for the rate in training, what is not in evaluation, and who counts the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.approximate import costs, priors, vae
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from tests import models

BATCH = models.binary(0)
SCHEDULE = optax.linear_schedule(0.0, 1.0, 4)
COSTS = {
  "beta": costs.weighted(4.0),
  "warm-up": costs.weighted(SCHEDULE),
  "capacity": costs.capacity(30.0, optax.linear_schedule(0.0, 8.0, 4)),
  "free-bits": costs.free_bits(0.5),
}


def make(cost=None, prior=None, **options):
  module = vae.VAE(FlatEncoder((16,)), FlatDecoder((16,), (8, 8, 1)), vae.bernoulli(), 3, prior or priors.StandardNormal())
  return vae.vae(module, optax.sgd(1e-3), objective=cost and vae.negative_elbo(cost), **options)


def never():
  raise AssertionError("nobody needs the number of steps here")


def test_costs_are_their_formulas():
  rates = jnp.asarray(np.random.default_rng(0).exponential(size=(6, 3)), jnp.float32)
  total = rates.sum(1)
  np.testing.assert_allclose(costs.weighted(4.0)(rates, never), 4 * total, rtol=1e-6)
  np.testing.assert_allclose(costs.weighted(SCHEDULE)(rates, lambda: 3), 0.75 * total, rtol=1e-6)
  np.testing.assert_allclose(COSTS["capacity"](rates, lambda: 2), 30 * np.abs(np.asarray(total) - 4), rtol=1e-5)
  for nats in (0.0, 0.9, 5.0):
    found = costs.free_bits(nats)(rates, never).mean()
    np.testing.assert_allclose(found, np.maximum(np.asarray(rates).mean(0), nats).sum(), rtol=1e-5)


def test_what_is_free_has_no_gradient():
  rates = jnp.array([[0.1, 2.0], [0.7, 0.2]])  # means 0.4 and 1.1
  gradient = jax.grad(lambda rates: costs.free_bits(0.5)(rates, never).mean())(rates)
  np.testing.assert_allclose(gradient, [[0, 0.5], [0, 0.5]])


@pytest.mark.parametrize("name", COSTS)
def test_evaluation_is_the_bound_whatever_was_paid(name):
  plain, paying = make(), make(COSTS[name])
  state = jax.jit(paying.init)(jax.random.key(0), BATCH)
  state, _ = jax.jit(paying.step)(jax.random.key(1), state, BATCH)
  without = jax.tree.map(lambda leaf: leaf, state)
  ours = jax.jit(paying.evaluate)(jax.random.key(2), state, BATCH)
  theirs = jax.jit(plain.evaluate)(jax.random.key(2), without, BATCH)
  for part in ("nll_bound", "distortion", "rate"):
    np.testing.assert_array_equal(ours[part], theirs[part])
  np.testing.assert_allclose(ours["nll_bound"], ours["distortion"] + ours["rate"], rtol=1e-6)


@pytest.mark.parametrize("options", [{"cost": COSTS["warm-up"]}, {"beta": SCHEDULE}], ids=["cost", "beta"])
def test_a_schedule_counts_the_steps_and_evaluation_counts_none(options):
  model = make(**options)
  state = jax.jit(model.init)(jax.random.key(0), BATCH)
  step = jax.jit(model.step)
  for index, beta in enumerate([0.0, 0.25, 0.5, 0.75, 1.0, 1.0]):
    assert int(state.net.stats["counters"]["steps"]) == index
    model.evaluate(jax.random.key(5), state, BATCH)
    state, metrics = step(jax.random.key(index), state, BATCH)
    np.testing.assert_allclose(metrics["loss"], metrics["distortion"] + beta * metrics["rate"], rtol=1e-5)
  assert int(state.average.variables["counters"]["steps"]) == 6  # a count is not averaged


def test_who_needs_no_count_keeps_none():
  for cost in (None, COSTS["beta"], COSTS["free-bits"]):
    state = jax.eval_shape(make(cost).init, jax.random.key(0), BATCH)
    assert state.net.stats == {}


def test_a_prior_without_a_closed_form_pays_for_its_rate_in_one_part():
  model = make(costs.free_bits(100.0), priors.GaussianMixture(2))
  state = jax.jit(model.init)(jax.random.key(0), BATCH)
  _, metrics = jax.jit(model.step)(jax.random.key(1), state, BATCH)
  assert float(metrics["rate"]) < 100
  np.testing.assert_allclose(metrics["loss"], metrics["distortion"] + 100, rtol=1e-5)
