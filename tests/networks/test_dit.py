"""The diffusion transformer: against numpy in float64, the paper's sizes, what must hold for any network of a noise level."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks import dit
from gm_jax.networks.dit import Block, DiT, places
from tests.networks.tools import assert_all_used, assert_equal, assert_rows_are_their_own, noisy

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 6, 2)), jnp.float32)
TIME = jnp.array([3.0, 500.0, 20.0])
LABEL = jnp.array([0, 2, 1])
SMALL = {"features": 16, "depth": 2, "heads": 2, "patch": 2}


def build(**fields):
  """A small DiT away from its start: `(apply(params, ...), params)`."""
  net = DiT(**{**SMALL, **fields})
  return jax.jit(net.apply, static_argnames="train"), noisy(net.init, X, TIME, size=0.2)


# The paper's numbers.


def count_by_hand(features, depth, patch, inputs, outputs, classes):
  """Weights and biases, layer by layer."""
  dense = lambda ins, outs: ins * outs + outs
  block = dense(features, 6 * features)  # shift, scale and gate of attention and of the two layers
  block += 4 * dense(features, features)  # queries, keys, values; what comes out of attention
  block += dense(features, 4 * features) + dense(4 * features, features)
  time_and_label = dense(256, features) + dense(features, features) + (classes + 1) * features
  last = dense(features, 2 * features) + dense(features, patch**2 * outputs)
  return dense(patch**2 * inputs, features) + time_and_label + depth * block + last


@pytest.mark.parametrize(
  ("size", "features", "depth", "heads", "millions"),
  [("s", 384, 12, 6, 33), ("b", 768, 12, 12, 130), ("l", 1024, 24, 16, 458), ("xl", 1152, 28, 16, 675)],
)
def test_sizes_are_the_papers(size, features, depth, heads, millions):
  """Latents of 32 x 32 x 4, mean and variance of each, ImageNet's labels; table 1 of the paper and its appendix."""
  net = getattr(dit, f"dit_{size}")(patch=2, num_classes=1000, out_channels=8)
  latents = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32)
  y, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), latents, TIME[:1])
  total = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert total == count_by_hand(features, depth, 2, 4, 8, 1000)
  assert round(total / 1e6) == millions
  assert y.shape == (1, 32, 32, 8)
  assert net.heads == heads


# Against numpy.


def by_hand(params, x, time, label):
  """In float64, out of section 3 of the paper, one token after the other where they attend."""
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
  x, time = np.asarray(x, np.float64), np.asarray(time, np.float64)
  features, patch = SMALL["features"], SMALL["patch"]
  dense = lambda layer, h: h @ layer["kernel"] + layer["bias"]
  silu = lambda h: h / (1 + np.exp(-h))
  gelu = lambda h: h / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
  norm = lambda h: (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)

  angles = time[:, None] * 10_000.0 ** (-np.arange(128) / 127)
  # Of two nested layers the outer is named first.
  context = silu(dense(params["Dense_1"], np.concatenate([np.sin(angles), np.cos(angles)], -1)))
  context = silu(dense(params["Dense_0"], context) + params["Embed_0"]["embedding"][np.asarray(label)])
  said = lambda layer, parts: np.split(dense(layer, context)[:, None], parts, -1)

  corners = [(i, j) for i in range(0, x.shape[1], patch) for j in range(0, x.shape[2], patch)]
  tokens = [x[:, i : i + patch, j : j + patch].reshape(len(x), -1) for i, j in corners]
  where = [place_by_hand(i // patch, j // patch, features) for i, j in corners]
  h = dense(params["Dense_2"], np.stack(tokens, 1)) + np.array(where)
  for number in range(SMALL["depth"]):
    layers = params[f"Block_{number}"]
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = said(layers["Dense_0"], 6)
    qkv = dense(layers["Dense_1"], norm(h) * (1 + scale_1) + shift_1)
    h = h + gate_1 * dense(layers["Dense_2"], attention_by_hand(qkv, SMALL["heads"]))
    inner = gelu(dense(layers["Dense_3"], norm(h) * (1 + scale_2) + shift_2))
    h = h + gate_2 * dense(layers["Dense_4"], inner)
  shift, scale = said(params["Dense_3"], 2)
  h = dense(params["Dense_4"], norm(h) * (1 + scale) + shift)

  y = np.zeros((*x.shape[:3], h.shape[-1] // patch**2))
  for token, (i, j) in enumerate(corners):
    y[:, i : i + patch, j : j + patch] = h[:, token].reshape(len(x), patch, patch, -1)
  return y


def place_by_hand(row, column, features):
  quarter = features // 4
  angles = [[at / 10_000 ** (i / (quarter - 1)) for i in range(quarter)] for at in (row, column)]
  return [value for axis in angles for function in (math.sin, math.cos) for value in map(function, axis)]


def attention_by_hand(qkv, heads):
  batch, tokens, _ = qkv.shape
  q, k, v = (part.reshape(batch, tokens, heads, -1) for part in np.split(qkv, 3, -1))
  h = np.zeros(q.shape)
  for b, token, head in np.ndindex(batch, tokens, heads):
    weights = np.exp(k[b, :, head] @ q[b, token, head] / math.sqrt(q.shape[-1]))
    h[b, token, head] = weights / weights.sum() @ v[b, :, head]
  return h.reshape(batch, tokens, -1)


def test_is_what_the_paper_says():
  apply, params = build(num_classes=3, out_channels=5)
  assert_equal(apply(params, X, TIME, LABEL), by_hand(params, X, TIME, LABEL), 1e-4)


def test_places_by_hand():
  expected = [place_by_hand(i, j, 16) for i in range(3) for j in range(5)]
  np.testing.assert_allclose(places(3, 5, 16), expected, atol=1e-5)
  assert len({tuple(row) for row in np.asarray(places(16, 16, 16)).round(4)}) == 256, "no two places look the same"


# What must hold.


def test_starts_at_zero_with_blocks_that_do_nothing():
  y, _ = jax.jit(DiT(**SMALL).init_with_output)(jax.random.key(1), X, TIME)
  np.testing.assert_array_equal(y, np.zeros(X.shape))
  tokens = X.reshape(3, 6, 8)
  y, _ = jax.jit(Block(2).init_with_output)(jax.random.key(1), tokens, TIME[:, None])
  np.testing.assert_array_equal(y, tokens)


def test_every_parameter_is_used():
  apply, params = build(num_classes=2)
  assert_all_used(jax.jit(jax.grad(lambda params: jnp.square(apply(params, X, TIME, LABEL)).sum()))(params))


def test_examples_do_not_see_each_other():
  apply, params = build(num_classes=3)
  assert_rows_are_their_own(lambda *arguments: apply(params, *arguments), X, TIME, LABEL, tolerance=1e-4)


def test_a_block_does_not_know_where_a_token_is_but_the_network_does():
  block, tokens = Block(2), X.reshape(3, 6, 8)
  block_params = noisy(block.init, tokens, TIME[:, None])
  apply, order = jax.jit(block.apply), np.array([3, 0, 5, 1, 4, 2])
  context = jnp.cos(TIME)[:, None]
  assert_equal(apply(block_params, tokens[:, order], context), apply(block_params, tokens, context)[:, order])
  apply, params = build()
  left_right = lambda x: jnp.roll(x, 2, 2)  # by one patch
  assert jnp.abs(apply(params, left_right(X), TIME) - left_right(apply(params, X, TIME))).max() > 1e-2


def test_time_matters_and_keeps_its_scale():
  apply, params = build()
  y = apply(params, X, TIME)
  assert (jnp.abs(y - apply(params, X, TIME + 1)).max((1, 2, 3)) > 1e-3).all()
  in_thousands, _ = build(time_scale=1000.0)
  assert_equal(in_thousands(params, X, TIME / 1000), y, 1e-3)


def test_no_label_is_a_label_of_its_own():
  apply, params = build(num_classes=3)
  y, without = apply(params, X, TIME, LABEL), apply(params, X, TIME)
  np.testing.assert_array_equal(apply(params, X, TIME, jnp.full(3, 3)), without)
  for other in (without, apply(params, X, TIME, (LABEL + 1) % 3)):
    assert (jnp.abs(other - y).max((1, 2, 3)) > 1e-3).all()
  table = params["params"]["Embed_0"]["embedding"]
  others = {"params": {**params["params"], "Embed_0": {"embedding": table.at[:3].add(1)}}}
  np.testing.assert_array_equal(apply(others, X, TIME), without)
  with pytest.raises(UserError, match="num_classes"):
    DiT(**SMALL).init(jax.random.key(0), X, TIME, LABEL)


def test_bfloat16_keeps_its_islands():
  apply, params = build(num_classes=3)
  half, half_params = build(num_classes=3, dtype=jnp.bfloat16)
  assert {leaf.dtype for leaf in jax.tree.leaves(half_params)} == {jnp.dtype(jnp.float32)}
  y = half(params, X, TIME, LABEL)
  assert y.dtype == jnp.float32
  assert_equal(y, apply(params, X, TIME, LABEL), 0.05)
  thousandths = jnp.arange(997.0, 1000.0)  # bfloat16 has one number for them all
  y = half(params, jnp.repeat(X[:1], 3, 0), thousandths)
  assert (jnp.abs(jnp.diff(y, axis=0)).max((1, 2, 3)) > 1e-2).all()


def test_remembering_less_changes_nothing():
  nets = [DiT(**SMALL, remat=remat) for remat in (False, True)]
  params = noisy(nets[0].init, X, TIME, size=0.2)
  loss = lambda net, params: jnp.sin(net.apply(params, X, TIME)).sum()
  results = [jax.jit(jax.value_and_grad(lambda params, net=net: loss(net, params)))(params) for net in nets]
  assert_equal(results[1], results[0], 1e-4)
  pullbacks = [jax.eval_shape(lambda params, net=net: jax.vjp(lambda p: loss(net, p), params)[1], params) for net in nets]
  plain, remat = (sum(leaf.size for leaf in jax.tree.leaves(pullback)) for pullback in pullbacks)
  assert remat < plain


def test_refuses_what_does_not_fit():
  with pytest.raises(UserError, match="5 x 4"):
    DiT(**SMALL).init(jax.random.key(0), jnp.zeros((3, 5, 4, 2)), TIME)
  with pytest.raises(ValueError, match="3 heads"):
    DiT(**{**SMALL, "heads": 3}).init(jax.random.key(0), X, TIME)
