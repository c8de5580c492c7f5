"""Linear autoencoders against principal components, errors against their minima, penalties against closed forms."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import data, images
from gm_jax.networks.flat import FlatDecoder, FlatEncoder, Flatten
from gm_jax.reconstruction import autoencoder as ae
from gm_jax.reconstruction import codes, penalties

SHAPE = (8, 8, 1)


def linear(num_codes, shape=SHAPE):
  return ae.Autoencoder(Flatten(), FlatDecoder((), shape), num_codes)


def sigmoid(num_codes, shape=SHAPE):
  return ae.Autoencoder(Flatten(), FlatDecoder((), shape), num_codes, activation=nn.sigmoid)


def trained(model, batch, steps):
  """The state after steps of whole-batch descent, in one program."""
  state = jax.jit(model.init)(jax.random.key(0), batch)

  def many(state):
    return jax.lax.scan(lambda state, i: (model.step(jax.random.key(i), state, batch)[0], None), state, jnp.arange(steps))[0]

  return jax.jit(many)(state)


@functools.cache
def principal():
  """A linear autoencoder of the digits with five codes, and their principal components: (state, batch, x, axes, variances)."""
  batch = {"image": data.digits("train").arrays["image"]}
  x = np.asarray(images.to_unit(batch["image"]), np.float64).reshape(-1, 64)
  _, values, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
  rate = optax.cosine_decay_schedule(2e-2, 3000)
  state = trained(ae.autoencoder(linear(5), optax.adam(rate), decay=0.9), batch, 3000)
  return state, batch, x, axes, values**2 / len(x)


def test_a_linear_autoencoder_loses_the_discarded_eigenvalues():
  state, batch, _, _, variances = principal()
  error = ae.autoencoder(linear(5), optax.sgd(0.0)).evaluate(jax.random.key(0), state, batch)["reconstruction"]
  assert float(error.mean()) * 64 == pytest.approx(variances[5:].sum(), rel=2e-3)


def test_a_linear_autoencoder_spans_the_principal_directions():
  state, _, _, axes, _ = principal()
  kernel = np.asarray(state.average.variables["params"]["decoder"]["MLP_0"]["Dense_0"]["kernel"])  # [5, 64]
  basis = np.linalg.qr(kernel.T)[0]
  cosines = np.linalg.svd(basis.T @ axes[:5].T)[1]
  assert cosines.min() > 0.999


def test_samples_have_the_moments_of_what_was_reconstructed():
  state, batch, x, axes, variances = principal()
  module = linear(5)
  z = codes.draw(jax.random.key(1), state.average.variables["codes"]["moments"], 20_000)
  outputs = np.asarray(module.apply(state.average.variables, z, False, method="decode")).reshape(-1, 64)
  np.testing.assert_allclose(outputs.mean(0), x.mean(0), atol=0.02)
  spread = ((outputs - outputs.mean(0)) @ axes[:5].T).var(0)
  np.testing.assert_allclose(spread, variances[:5], rtol=0.06)


ERRORS = [ae.squared_error(), ae.absolute_error(), ae.cross_entropy(), ae.kl_divergence()]


@pytest.mark.parametrize("error", ERRORS, ids=["squared", "absolute", "cross-entropy", "kl"])
def test_no_output_is_better_than_the_right_one(error):
  x = np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
  outputs = np.linspace(-12, 12, 2401, dtype=np.float32)
  scores = np.asarray(error.score(outputs[:, None], x[None]))
  best = np.asarray(error.mean(outputs[scores.argmin(0)]))
  np.testing.assert_allclose(best, x, atol=6e-3)
  assert scores.min() >= -1e-6
  if error is ERRORS[2]:
    entropy = -np.array([0, 0.1 * np.log(0.1) + 0.9 * np.log(0.9), np.log(0.5), 0.1 * np.log(0.1) + 0.9 * np.log(0.9), 0])
    np.testing.assert_allclose(scores.min(0), entropy, atol=1e-4)
  else:
    np.testing.assert_allclose(scores.min(0), 0, atol=1e-4)


def test_cross_entropy_and_divergence_have_the_same_gradient():
  x, outputs = np.random.default_rng(0).random((2, 7)).astype(np.float32)
  slope = lambda error: jax.grad(lambda out: error.score(out, x).sum())(outputs)
  np.testing.assert_allclose(slope(ae.cross_entropy()), slope(ae.kl_divergence()), atol=1e-6)


def encoded(module, num=3, seed=0):
  """(bound module, x, z) at random parameters."""
  x = np.random.default_rng(seed).random((num, *SHAPE)).astype(np.float32)
  variables = jax.jit(lambda x: module.init(jax.random.key(0), x, False, method=both))(x)
  bound = module.bind(variables)
  return bound, x, bound.encode(x, False)


def both(module, x, train):
  return module.decode(module.encode(x, train), train)


def test_contraction_is_the_jacobian_and_its_closed_form():
  bound, x, z = encoded(sigmoid(4))
  exact = penalties.contractive(2.0)(bound, None, x, z)
  jacobian = jax.vmap(jax.jacrev(lambda one: bound.encode(one[None], False)[0]))(x)  # [B, 4, 8, 8, 1]
  np.testing.assert_allclose(exact, 2 * jnp.square(jacobian).sum((1, 2, 3, 4)), rtol=1e-5)
  kernel = bound.variables["params"]["code"]["kernel"]
  closed = jnp.square(z * (1 - z)) @ jnp.square(kernel).sum(0)
  np.testing.assert_allclose(exact, 2 * closed, rtol=1e-5)


def test_contraction_by_noise_is_right_on_average():
  bound, x, z = encoded(sigmoid(4))
  num = 4000
  exact = np.asarray(penalties.contractive(1.0)(bound, None, x, z))
  guess = np.asarray(penalties.contractive_by_noise(1.0, num)(bound, jax.random.key(3), x, z))
  # Var |J^T v|^2 = 2 |J J^T|^2 <= 2 |J|^4
  assert (abs(guess - exact) < 5 * np.sqrt(2 / num) * exact).all()


def test_sparsity_counts_activity_over_the_batch():
  z = np.array([[0.9, 0.2], [0.1, 0.0]], np.float32)
  np.testing.assert_allclose(penalties.l1(0.5)(None, None, None, -z), [0.55, 0.05], rtol=1e-6)
  kl = lambda p, q: p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  paid = penalties.kl_to_rate(0.1, 3.0)(None, None, None, z)
  np.testing.assert_allclose(paid, [3 * (kl(0.1, 0.5) + kl(0.1, 0.1))] * 2, rtol=1e-5)
  silent = penalties.kl_to_rate(0.1, 3.0)(None, None, None, np.zeros((2, 2), np.float32))
  assert np.isfinite(silent).all()


@pytest.mark.parametrize("penalty", ["l1", "rate", "contractive"])
def test_penalties_bring_down_what_they_ask_for(penalty):
  chosen = {
    "l1": (penalties.l1(0.02), lambda z: abs(z).mean()),
    "rate": (penalties.kl_to_rate(0.05, 0.1), lambda z: abs(z.mean(0) - 0.05).mean()),
    "contractive": (penalties.contractive(0.1), lambda z: z.std(0).mean()),
  }
  penalty, measure = chosen[penalty]
  module = ae.Autoencoder(FlatEncoder((16,)), FlatDecoder((16,), SHAPE), 6, activation=nn.sigmoid)
  batch = {"image": data.digits("train").arrays["image"][:128]}
  after = {}
  for name, paid in {"free": (), "paid": (penalty,)}.items():
    state = trained(ae.autoencoder(module, optax.adam(5e-3), penalties=paid, decay=0.5), batch, 200)
    after[name] = float(measure(ae.encode(module, state, batch["image"])))
  assert after["paid"] < 0.6 * after["free"]


def test_denoising_is_learnt_from_what_is_clean():
  """The best answer to an erased pixel that is always white in the data is white: the target is clean, the input is not."""
  batch = {"image": np.full((64, *SHAPE), 255, np.uint8)}
  black = lambda key, x: 0 * x
  model = ae.autoencoder(linear(2), optax.adam(3e-2), corrupt=black, decay=0.5)
  assert float(model.evaluate(jax.random.key(0), trained(model, batch, 300), batch)["reconstruction"].mean()) < 1e-3


def test_codes_are_averaged_over_all_batches_at_first():
  z = np.random.default_rng(0).normal(size=(5, 40, 3)).astype(np.float32)
  moments = codes.nothing(3)
  for batch in z:
    moments = codes.follow(moments, batch)
  flat = z.reshape(-1, 3)
  np.testing.assert_allclose(moments.mean, flat.mean(0), atol=1e-6)
  np.testing.assert_allclose(moments.second, flat.T @ flat / len(flat), atol=1e-5)
