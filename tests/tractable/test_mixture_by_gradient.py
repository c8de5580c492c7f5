"""Gradient ascent on a mixture's penalised likelihood against EM on the same: one hill, one top, in any coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.tractable import mixture as mix
from gm_jax.tractable import mixture_by_gradient
from tests.tractable.test_mixture import KINDS, SHARE, covariances, data_for, fitted, kinds, penalised


def apart(kind, num):
  """Three clumps (patterns) so clear that the likelihood has one top worth finding, float32 [num, 1, 1, D]."""
  rng = np.random.default_rng(0)
  which = rng.choice(3, num, p=[0.2, 0.3, 0.5])
  if kind == "bernoulli":
    patterns = np.kron(np.eye(3), np.ones(4)) * 0.8 + 0.1
    x = rng.uniform(size=(num, 12)) < patterns[which]
  else:
    centres, shapes = 4 * np.eye(3), 0.6 * np.eye(3) + 0.15 * rng.normal(size=(3, 3, 3))
    x = centres[which] + np.einsum("nij,nj->ni", shapes[which], rng.normal(size=(num, 3)))
  return {"image": x.astype(np.float32)[:, None, None]}


@kinds
def test_free_parameters_and_constrained_ones_are_the_same(kind):
  """Written freely and back nothing changes, and any free numbers at all are a mixture."""
  component = KINDS[kind]
  _, parts = mix.fit(component, fitted(mix.mixture(component, 3), data_for(kind, 100), 5), 1e-3)
  there_and_back = component.constrain(component.free(parts))
  for ours, theirs in zip(jax.tree.leaves(there_and_back), jax.tree.leaves(parts)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
  free = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.ndim), leaf.shape), component.free(parts))
  parts = component.constrain(free)
  if kind != "bernoulli":
    assert np.linalg.eigvalsh(covariances(kind, parts)).min() > 0
  if kind in ("full", "tied"):
    np.testing.assert_allclose(parts[1] @ parts[2], np.broadcast_to(np.eye(3), parts[1].shape), atol=1e-4)


@kinds
def test_gradient_ascent_and_em_reach_the_same_optimum(kind):
  """From k-means++, by different roads: penalised likelihoods within 1e-3 nats, and likelihoods too."""
  batch, steps, share = apart(kind, 512), 1000, 0.02  # so much that nobody gets there without the prior
  x, component = batch["image"].reshape(512, -1), KINDS[kind]
  em = mix.mixture(component, 3, share)
  ascent = mixture_by_gradient.by_gradient(component, 3, optax.adam(optax.cosine_decay_schedule(3e-2, steps)), share)
  start = jax.jit(ascent.init)(jax.random.key(0), batch)
  one = lambda index, state: ascent.step(jax.random.key(0), state, batch)[0]
  by_ascent = jax.jit(lambda state: jax.lax.fori_loop(0, steps, one, state))(start)
  by_em = fitted(em, batch, 200)
  height = lambda params: penalised(kind, params, x, share)
  top = height(mix.fit(component, by_em, share))
  assert top > height(mixture_by_gradient.fit(component, start)) + 1e-2
  assert height(mixture_by_gradient.fit(component, by_ascent)) == pytest.approx(top, abs=1e-3)
  nll = lambda model, state: float(model.evaluate(jax.random.key(0), state, batch)["nll"].mean())
  assert nll(ascent, by_ascent) == pytest.approx(nll(em, by_em), abs=1e-3)


@kinds
def test_where_em_stands_still_the_gradient_is_zero(kind):
  """The optimum of one is a stationary point of the other, and the free coordinates hide no direction."""
  batch = data_for(kind, 256)
  x, component = batch["image"].reshape(256, -1), KINDS[kind]
  log_weights, parts = mix.fit(component, fitted(mix.mixture(component, 3, SHARE), batch, 1000), SHARE)

  def loss(weights, free):
    params = jax.nn.log_softmax(weights), component.constrain(free)
    return mix.nll(component, params, x).mean() - mix.log_prior(component, params, SHARE)

  free = component.free(parts)
  gradient = jax.jit(jax.grad(loss, (0, 1)))(log_weights, free)
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-4
  elsewhere = jax.tree.map(lambda leaf: leaf + 0.1, free)
  assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, 1))(log_weights, elsewhere))) > 1e-3
