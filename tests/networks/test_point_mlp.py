"""The network for points: against numpy in float64, and what must hold for any network that a noise level is told to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.point_mlp import Block, PointMLP
from tests.networks.tools import assert_all_used, assert_equal, assert_rows_are_their_own, noisy

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1, 1, 3)), jnp.float32)
TIME = jnp.array([3.0, 500.0, 20.0, 999.0])
LABEL = jnp.array([0, 2, 1, 2])
SMALL = {"features": 8, "blocks": 2}


def build(**fields):
  """A small network away from its start: `(apply(params, ...), params)`."""
  net = PointMLP(**{**SMALL, **fields})
  return jax.jit(net.apply, static_argnames="train"), noisy(net.init, X, TIME)


def by_hand(params, x, time, label):
  """In float64, out of the docstrings: residual blocks whose units time and label scale and shift."""
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
  dense = lambda layer, h: h @ layer["kernel"] + layer["bias"]
  silu = lambda h: h / (1 + np.exp(-h))
  half = SMALL["features"] // 2
  angles = np.asarray(time, np.float64)[:, None] * 10_000.0 ** (-np.arange(half) / (half - 1))
  # Of two nested layers the outer is named first.
  context = silu(dense(params["Dense_1"], np.concatenate([np.sin(angles), np.cos(angles)], -1)))
  context = silu(dense(params["Dense_0"], context) + params["Embed_0"]["embedding"][np.asarray(label)])
  h = dense(params["Dense_2"], np.asarray(x, np.float64)[:, 0, 0])
  for number in range(SMALL["blocks"]):
    layers = params[f"Block_{number}"]
    scale, shift = np.split(dense(layers["Dense_0"], context), 2, -1)
    h = h + dense(layers["Dense_2"], silu(dense(layers["Dense_1"], silu(h)) * (1 + scale) + shift))
  return dense(params["Dense_3"], silu(h))[:, None, None]


def test_is_what_the_formula_says():
  apply, params = build(num_classes=3, out_channels=5)
  assert_equal(apply(params, X, TIME, LABEL), by_hand(params, X, TIME, LABEL), 1e-4)


def test_starts_at_zero_with_blocks_that_do_nothing():
  y, _ = jax.jit(PointMLP(**SMALL).init_with_output)(jax.random.key(1), X, TIME)
  np.testing.assert_array_equal(y, np.zeros(X.shape))
  h, context = X[:, 0, 0], TIME[:, None]
  np.testing.assert_array_equal(Block().init_with_output(jax.random.key(1), h, context, False)[0], h)


def test_every_parameter_is_used():
  apply, params = build(num_classes=3)
  assert_all_used(jax.jit(jax.grad(lambda params: jnp.square(apply(params, X, TIME, LABEL.at[3].set(3))).sum()))(params))


def test_examples_do_not_see_each_other():
  apply, params = build(num_classes=3, dropout=0.5)
  assert_rows_are_their_own(lambda *arguments: apply(params, *arguments), X, TIME, LABEL)
  training = lambda x, time, label: apply(params, x, time, label, train=True, rngs={"dropout": jax.random.key(1)})
  before, after = training(X, TIME, LABEL), training(X.at[1].add(1), TIME.at[1].set(7), LABEL.at[1].set(0))
  others = np.array([0, 2, 3])
  np.testing.assert_array_equal(after[others], before[others])
  assert jnp.abs(after[1] - before[1]).max() > 1e-3
  assert jnp.abs(apply(params, X, TIME, LABEL) - before).max() > 1e-3, "dropout drops"


def test_time_matters_and_keeps_its_scale():
  apply, params = build()
  y = apply(params, X, TIME)
  assert (jnp.abs(y - apply(params, X, TIME + 1)).max((1, 2, 3)) > 1e-3).all()
  in_thousands, _ = build(time_scale=1000.0)
  assert_equal(in_thousands(params, X, TIME / 1000), y, 1e-3)


def test_no_label_is_a_label_of_its_own():
  apply, params = build(num_classes=3)
  y, without = apply(params, X, TIME, LABEL), apply(params, X, TIME)
  np.testing.assert_array_equal(apply(params, X, TIME, jnp.full(4, 3)), without)
  for other in (without, apply(params, X, TIME, (LABEL + 1) % 3)):
    assert (jnp.abs(other - y).max((1, 2, 3)) > 1e-3).all()
  table = params["params"]["Embed_0"]["embedding"]
  others = {"params": {**params["params"], "Embed_0": {"embedding": table.at[:3].add(1)}}}
  np.testing.assert_array_equal(apply(others, X, TIME), without)
  with pytest.raises(UserError, match="num_classes"):
    PointMLP(**SMALL).init(jax.random.key(0), X, TIME, LABEL)


def test_bfloat16_keeps_its_islands():
  apply, params = build(num_classes=3)
  half, half_params = build(num_classes=3, dtype=jnp.bfloat16)
  assert {leaf.dtype for leaf in jax.tree.leaves(half_params)} == {jnp.dtype(jnp.float32)}
  y = half(params, X, TIME, LABEL)
  assert y.dtype == jnp.float32
  assert_equal(y, apply(params, X, TIME, LABEL), 0.05)
  thousandths = jnp.arange(996.0, 1000.0)  # bfloat16 has one number for them all
  y = half(params, jnp.repeat(X[:1], 4, 0), thousandths, None)
  assert (jnp.abs(jnp.diff(y, axis=0)).max((1, 2, 3)) > 1e-2).all()


def test_remembering_less_changes_nothing():
  nets = [PointMLP(**SMALL, dropout=0.5, remat=remat) for remat in (False, True)]
  params = noisy(nets[0].init, X, TIME)

  def loss(net, params):
    return jnp.sin(net.apply(params, X, TIME, None, True, rngs={"dropout": jax.random.key(1)})).sum()

  results = [jax.jit(jax.value_and_grad(lambda params, net=net: loss(net, params)))(params) for net in nets]
  assert_equal(results[1], results[0])
  pullbacks = [jax.eval_shape(lambda params, net=net: jax.vjp(lambda p: loss(net, p), params)[1], params) for net in nets]
  plain, remat = (sum(leaf.size for leaf in jax.tree.leaves(pullback)) for pullback in pullbacks)
  assert remat < plain


def test_refuses_images():
  with pytest.raises(UserError, match="2 x 1"):
    PointMLP().init(jax.random.key(0), jnp.zeros((3, 2, 1, 2)), TIME[:3])
