"""What every critic and generator promises to a game, whatever it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import began, conditional, dcgan, infogan, minibatch, progressive, spectral, style
from gm_jax.networks.players import FlatCritic, FlatGenerator
from tests.networks.tools import assert_all_used, assert_equal, assert_rows_are_their_own, noisy

X = jax.random.uniform(jax.random.key(0), (4, 8, 8, 2), minval=-1)
Z = jax.random.normal(jax.random.key(1), (4, 5))
LABEL = jnp.array([0, 2, 1, 2])

FLAT = FlatCritic((6, 5))
LABELLED = {"concatenated": conditional.ConditionalCritic(FLAT, 3), "projection": conditional.ProjectionCritic(FLAT, 3)}
CRITICS = {
  "flat": FLAT,
  "dcgan": dcgan.Discriminator(3, norm=None),
  "infogan": infogan.Discriminator(3, norm=None),
  "recogniser": infogan.InfoCritic(FLAT, (4, 3), 2, hidden=5),
  "began": began.AutoencodingCritic(began.Encoder(4, base=2, halvings=1), began.Decoder((8, 8, 2), base=2, halvings=1)),
  "progressive": progressive.Discriminator((3, 2), group=1),
  "style": style.Discriminator((3, 2), group=1),
  "spectral": spectral.SpectralNorm(FLAT),
  **LABELLED,
}
GENERATORS = {
  "flat": FlatGenerator((6, 5), (8, 8, 2)),
  "infogan": infogan.Generator((8, 8, 2), base=2, norm=None),
  "began": began.Decoder((8, 8, 2), base=2, halvings=1),
  "progressive": progressive.Generator((8, 8, 2), (3, 2)),
  "spectral": spectral.SpectralNorm(FlatGenerator((6, 5), (8, 8, 2))),
  "concatenated": conditional.ConditionalGenerator(FlatGenerator((6, 5), (8, 8, 2)), 3),
}


FADING = {"progressive": {"alpha": 0.5}}  # both levels have their part only then


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_judges_each_image_alone_and_its_two_calls_are_halves_of_one(name):
  critic = CRITICS[name]
  label = (LABEL,) if name in LABELLED else ()
  params = noisy(lambda key, *inputs: critic.init(key, inputs[0], True, *inputs[1:]), X, *label)
  call = jax.jit(
    lambda method, params, *inputs: critic.apply(params, inputs[0], False, *inputs[1:], method=method), static_argnums=0
  )
  logits, features = call("judge", params, X, *label)
  assert_equal(call("__call__", params, X, *label), logits)
  assert_equal(call("features", params, X, *label), features)
  assert logits.shape == (4,)
  assert features.ndim == 2
  assert features.shape[1] > 1
  assert np.std(logits) > 0
  assert_rows_are_their_own(lambda *inputs: call("judge", params, *inputs)[0], X, *label)


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_uses_all_it_has(name):
  critic = CRITICS[name]
  label = (LABEL,) if name in LABELLED else ()
  variables = noisy(lambda key, *inputs: critic.init(key, inputs[0], True, *inputs[1:]), X, *label)

  def loss(params):
    logits = critic.apply({**variables, "params": params}, X, False, *label, **FADING.get(name, {}))
    if name != "recogniser":
      return jnp.sin(3 * logits).sum()
    codes = critic.apply({"params": params}, X, False, method="recognise")
    return sum(jnp.sin(3 * leaf).sum() for leaf in jax.tree.leaves((logits, codes)))

  assert_all_used(jax.jit(jax.grad(loss))(variables["params"]))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_draws_each_image_from_its_own_row_and_uses_all_it_has(name):
  generator = GENERATORS[name]
  label = (LABEL,) if name == "concatenated" else ()
  variables = noisy(lambda key, *inputs: generator.init(key, inputs[0], True, *inputs[1:]), Z, *label)
  told = FADING.get(name, {})
  draw = jax.jit(lambda params, z, *label: generator.apply({**variables, "params": params}, z, False, *label, **told))
  x = draw(variables["params"], Z, *label)
  assert x.shape == X.shape
  assert np.abs(np.diff(x, axis=0)).max(axis=(1, 2, 3)).min() > 1e-3  # no two alike
  assert_rows_are_their_own(lambda *inputs: draw(variables["params"], *inputs), Z, *label)
  assert_all_used(jax.grad(lambda params, z: jnp.sin(3 * draw(params, z, *label)).sum(), (0, 1))(variables["params"], Z))


def test_flat_players_by_hand():
  params = noisy(lambda key, x: FLAT.init(key, x, True), X)["params"]
  first, second = (params["FlatEncoder_0"]["MLP_0"][f"Dense_{i}"] for i in range(2))
  affine = lambda x, layer: x @ layer["kernel"] + layer["bias"][None]
  rectified = lambda x: jnp.maximum(x, 0.2 * x)
  features = rectified(affine(rectified(affine(X.reshape(4, -1), first)), second))
  assert_equal(FLAT.apply({"params": params}, X, True, method="features"), features)
  assert_equal(FLAT.apply({"params": params}, X, True), affine(features, params["Dense_0"])[:, 0])
  layers = ((6,), (1, 1, 2))
  params = noisy(lambda key, z: FlatGenerator(*layers).init(key, z, True), Z)
  points = FlatGenerator(*layers, output=lambda x: x).apply(params, Z, True)
  assert_equal(FlatGenerator(*layers).apply(params, Z, True), np.tanh(points))


@pytest.mark.parametrize("norm", [dcgan.batch_norm, None])
def test_dcgans_features_are_what_its_last_layer_reads(norm):
  critic = dcgan.Discriminator(3, norm)
  variables = noisy(lambda key, x: critic.init(key, x, True), X)
  features = critic.apply(variables, X, False, method="features")
  last = variables["params"]["Dense_0"]
  assert_equal(critic.apply(variables, X, False), (features @ last["kernel"] + last["bias"][None])[:, 0])


def test_packed_wrappers_hand_keywords_through():
  """A growing player that is told a label and is normalised still hears its level."""
  critic = spectral.SpectralNorm(conditional.ProjectionCritic(progressive.Discriminator((3, 2)), 3))
  small = X[:, ::2, ::2]
  variables = jax.jit(lambda: critic.init(jax.random.key(2), X, True, LABEL))()
  judged = critic.apply(variables, small, False, LABEL, level=0)
  doubled = jnp.repeat(jnp.repeat(small, 2, 1), 2, 2)
  assert_equal(critic.apply(variables, doubled, False, LABEL, level=1, alpha=0.0), judged)
  compared = minibatch.MinibatchCritic(progressive.Discriminator((3, 2)), 2, 2)
  variables = jax.jit(lambda: compared.init(jax.random.key(2), X, True))()
  assert_equal(compared.apply(variables, doubled, False, level=1, alpha=0.0), compared.apply(variables, small, False, level=0))
