"""Masks: who sees whom, in any order, and weights that no mask touches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.networks import masked
from gm_jax.networks.masked import MaskedMLP
from tests.networks.tools import noisy
from tests.tractable.pixels import assert_causal

SIZE = 7
NETWORKS = {
  "no-layer": MaskedMLP(SIZE, ()),
  "one-layer": MaskedMLP(SIZE, (30,), jnp.tanh),
  "three-layers": MaskedMLP(SIZE, (30, 20, 40), jnp.tanh),
  "direct": MaskedMLP(SIZE, (30, 20), jnp.tanh, direct=True),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def x_and_variables(name, num=3):
  network = NETWORKS[name]
  x = np.random.default_rng(0).normal(size=(num, SIZE)).astype(np.float32)
  return network, x, noisy(network.init, x, masked.raster(SIZE, network.hidden), False, size=0.5)


@networks
@pytest.mark.parametrize("order", ["raster", "shuffled"])
def test_outputs_see_the_inputs_before_them_in_any_order(name, order):
  network, x, variables = x_and_variables(name)
  shuffled = masked.shuffled(jax.random.key(2), SIZE, network.hidden)
  degrees = masked.raster(SIZE, network.hidden) if order == "raster" else shuffled
  # In training, with inputs lost at random; the examples lose different ones, so all of them together lose none.
  network = network.clone(dropout=0.3)
  train = lambda x: network.apply(variables, x, degrees, True, rngs={"dropout": jax.random.key(1)})
  assert_causal(train, np.tile(x, (4, 1)), np.asarray(masked.order_of(degrees)))


@networks
def test_every_allowed_pair_is_connected(name):
  """With layers this wide no input is lost on the way to a later output."""
  network, x, variables = x_and_variables(name, num=1)
  jacobian = jax.jacobian(lambda x: network.apply(variables, x[None], masked.raster(SIZE, network.hidden), False)[0])(x[0])
  assert bool((np.tril(jacobian != 0, -1) == np.tril(np.ones((SIZE, SIZE), bool), -1)).all())


@networks
def test_one_input_at_a_time_gives_the_same_outputs(name):
  network, x, variables = x_and_variables(name)
  # Another order, and other units, for each example.
  each = [masked.shuffled(key, SIZE, network.hidden) for key in jax.random.split(jax.random.key(5), 3)]
  degrees = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
  orders = jax.vmap(masked.order_of)(degrees)

  def walk(network):
    seen, outputs = network.begin(3), jnp.zeros_like(x)
    for which in orders.T:
      outputs = outputs.at[jnp.arange(3), which].set(network.output(seen, which))
      seen = network.see(seen, degrees, which, x[jnp.arange(3), which])
    return outputs

  whole = [network.apply(variables, row[None], own, False)[0] for row, own in zip(x, each)]
  np.testing.assert_allclose(network.apply(variables, method=walk), jnp.stack(whole), rtol=1e-5, atol=1e-5)


def test_two_masks_in_turn_leave_alone_what_they_hide():
  """Gradient descent: in each step the weights outside the mask in use do not move, and masks never zero a weight."""
  network, x, variables = x_and_variables("direct", num=8)
  masks = [masked.shuffled(jax.random.key(seed), SIZE, network.hidden) for seed in (0, 1)]
  optimizer = optax.sgd(0.01)

  @jax.jit
  def step(variables, degrees):
    loss = lambda variables: ((network.apply(variables, x, degrees, True) - x) ** 2).mean()
    updates, _ = optimizer.update(jax.grad(loss)(variables), optimizer.init(variables))
    return optax.apply_updates(variables, updates)

  def uses(degrees):
    """Which weights this mask lets through, from the definition, one by one."""
    layers = [np.asarray(degrees.inputs), *map(np.asarray, degrees.hidden)]
    pairs = {f"kernel_{i}": np.array([[a <= b for b in layers[i + 1]] for a in layers[i]]) for i in range(len(layers) - 1)}
    pairs[f"kernel_{len(layers) - 1}"] = np.array([[a < b for b in layers[0]] for a in layers[-1]])
    pairs["direct_0"] = np.array([[a < b for b in layers[0]] for a in layers[0]])
    return pairs

  allowed, first = [uses(degrees) for degrees in masks], variables
  for index in range(100):
    before, variables = variables, step(variables, masks[index % 2])
    for name, mask in allowed[index % 2].items():
      np.testing.assert_array_equal(variables["params"][name][~mask], before["params"][name][~mask])
  for name in allowed[0]:
    either = allowed[0][name] | allowed[1][name]
    assert (variables["params"][name][either] != first["params"][name][either]).mean() > 0.95
    assert (np.asarray(variables["params"][name]) != 0).all()


def test_degrees_are_even_and_leave_no_unit_blind_or_useless():
  for degrees in [masked.raster(5, (8, 20)), masked.shuffled(jax.random.key(0), 5, (8, 20))]:
    assert sorted(np.asarray(degrees.inputs)) == [1, 2, 3, 4, 5]
    for layer, size in zip(degrees.hidden, (8, 20)):
      np.testing.assert_array_equal(np.bincount(layer, minlength=6), [0, *[size // 4] * 4, 0])


def test_an_order_is_kept():
  order = np.array([3, 0, 2, 1])
  degrees = masked.in_order(jax.random.key(0), jnp.asarray(order), (4,))
  np.testing.assert_array_equal(masked.order_of(degrees), order)
  np.testing.assert_array_equal(degrees.inputs, [2, 4, 3, 1])


def test_an_image_of_one_pixel_has_a_bias_and_nothing_to_see():
  network = MaskedMLP(1, (3,), direct=True)
  degrees = masked.raster(1, (3,))
  variables = noisy(network.init, jnp.zeros((2, 1)), degrees, False)
  outputs = network.apply(variables, jnp.array([[0.0], [1.0]]), degrees, False)
  np.testing.assert_array_equal(outputs[0], outputs[1])
