"""The U-Net: its parts against flax's, and what must hold for the whole."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.attention import Attention
from gm_jax.networks.embedding import sinusoidal
from gm_jax.networks.norm import group_norm
from gm_jax.networks.unet import ResidualBlock, UNet, ddpm_256, ddpm_cifar10, depth_to_space, space_to_depth
from tests.networks.tools import assert_all_used, assert_equal, assert_rows_are_their_own, noisy

X = jax.random.normal(jax.random.key(0), (3, 8, 8, 2))
TIME = jnp.array([3.0, 500.0, 20.0])
LABEL = jnp.array([0, 2, 1])
SMALL = {"channels": (8, 16), "blocks": 1, "heads": 2}


def build(x=X, **fields):
  """A small U-Net away from its start: `(apply(params, ...), params)`."""
  net = UNet(**{**SMALL, **fields})
  params = noisy(net.init, x, TIME)
  return jax.jit(net.apply, static_argnames="train"), params


# The whole.


DDPM = {"scale_shift": False, "attention_bias": True, "widen_first": False, "heads": 1}
FIELDS = [{"patch": 2, "num_classes": 3, "out_channels": 5}, {"channels": (8,), "attention": ()}, DDPM]


def test_starts_at_zero():
  y, _ = jax.jit(UNet((4,), 0, patch=4).init_with_output)(jax.random.key(1), X, TIME)
  np.testing.assert_array_equal(y, np.zeros(X.shape))


def test_a_new_block_is_the_identity():
  blocks = [(ResidualBlock(2, scale_shift=scale_shift), (TIME[:, None], True)) for scale_shift in (True, False)]
  for layer, arguments in (*blocks, (Attention(heads=2), ())):
    y, _ = layer.init_with_output(jax.random.key(1), X, *arguments)
    np.testing.assert_array_equal(y, X)


@pytest.mark.parametrize("fields", FIELDS)
def test_every_parameter_is_used(fields):
  apply, params = build(**fields)
  label = LABEL if "num_classes" in fields else None
  assert_all_used(jax.jit(jax.grad(lambda params: jnp.square(apply(params, X, TIME, label)).sum()))(params))


@pytest.mark.parametrize(("levels", "widths"), [((), [16]), ((0,), [8, 8, 8, 16]), ((1,), [16, 16, 16, 16])])
def test_attends_at_the_levels_it_is_told_to(levels, widths):
  """Once on the way down, twice on the way up, and at the bottom."""
  params = jax.eval_shape(UNet(**SMALL, attention=levels).init, jax.random.key(1), X, TIME)["params"]
  assert sorted(params[name]["Dense_1"]["bias"].size for name in params if "Attention" in name) == widths


def test_takes_28_by_28_as_two_levels_of_patches():
  x = jax.ShapeDtypeStruct((3, 28, 28, 1), jnp.float32)
  y, _ = jax.eval_shape(UNet((48, 96), patch=2).init_with_output, jax.random.key(1), x, TIME)
  assert y.shape == x.shape


def test_examples_do_not_see_each_other():
  apply, params = build(patch=2, num_classes=3)
  assert_rows_are_their_own(lambda *arguments: apply(params, *arguments), X, TIME, LABEL, tolerance=1e-4)


def test_time_matters_and_keeps_its_scale():
  apply, params = build()
  y = apply(params, X, TIME)
  assert (jnp.abs(y - apply(params, X, TIME + 1)).max((1, 2, 3)) > 1e-3).all()
  in_thousands, _ = build(time_scale=1000.0)
  assert_equal(in_thousands(params, X, TIME / 1000), y, 1e-3)


def test_no_label_is_a_label_of_its_own():
  apply, params = build(num_classes=3)
  y = apply(params, X, TIME, LABEL)
  without = apply(params, X, TIME)
  np.testing.assert_array_equal(apply(params, X, TIME, jnp.full(3, 3)), without)
  for other in (without, apply(params, X, TIME, (LABEL + 1) % 3)):
    assert (jnp.abs(other - y).max((1, 2, 3)) > 1e-3).all()
  table = params["params"]["Embed_0"]["embedding"]
  others = {"params": {**params["params"], "Embed_0": {"embedding": table.at[:3].add(1)}}}
  np.testing.assert_array_equal(apply(others, X, TIME), without)


def test_dropout_only_while_training_and_each_example_its_own():
  apply, params = build(dropout=0.5)
  plain, _ = build()
  y = plain(params, X, TIME)
  assert_equal(apply(params, X, TIME), y)
  dropped = [apply(params, X, TIME, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 2)]
  assert all(jnp.abs(a - b).max() > 1e-2 for a, b in ((dropped[0], y), (dropped[0], dropped[1])))
  changed = apply(params, X.at[1].add(1), TIME.at[1].set(7), train=True, rngs={"dropout": jax.random.key(1)})
  np.testing.assert_array_equal(changed[::2], dropped[0][::2])
  assert jnp.abs(changed[1] - dropped[0][1]).max() > 1e-2


def test_bfloat16_keeps_its_islands():
  apply, params = build(num_classes=3, blocks=0)
  half, half_params = build(num_classes=3, blocks=0, dtype=jnp.bfloat16)
  assert {leaf.dtype for leaf in jax.tree.leaves(half_params)} == {jnp.dtype(jnp.float32)}
  y = half(params, X, TIME, LABEL)
  assert y.dtype == jnp.float32
  assert_equal(y, apply(params, X, TIME, LABEL), 0.05)
  thousandths = jnp.arange(997.0, 1000.0)  # bfloat16 has one number for them all
  y = half(params, jnp.repeat(X[:1], 3, 0), thousandths, jnp.full(3, 3))
  assert (jnp.abs(jnp.diff(y, axis=0)).max((1, 2, 3)) > 1e-2).all()


def test_remembering_less_changes_nothing():
  nets = [UNet((8,), 0, (), dropout=0.5, remat=remat) for remat in (False, True)]
  x, time = X[:2, :4, :4], TIME[:2]
  params = noisy(nets[0].init, x, time)

  def loss(net, params):
    return jnp.sin(net.apply(params, x, time, None, True, rngs={"dropout": jax.random.key(1)})).sum()

  results = [jax.jit(jax.value_and_grad(lambda params, net=net: loss(net, params)))(params) for net in nets]
  assert_equal(results[1], results[0], 1e-4)
  pullbacks = [jax.eval_shape(lambda params, net=net: jax.vjp(lambda p: loss(net, p), params)[1], params) for net in nets]
  plain, remat = (sum(leaf.size for leaf in jax.tree.leaves(pullback)) for pullback in pullbacks)
  assert remat < plain


@pytest.mark.parametrize(("fields", "shape"), [({}, (7, 8)), ({"patch": 2}, (8, 6)), ({"channels": (8, 8, 8, 8)}, (28, 28))])
def test_refuses_images_that_do_not_fit(fields, shape):
  with pytest.raises(UserError, match=f"{shape[0]} x {shape[1]}"):
    UNet(**{**SMALL, **fields}).init(jax.random.key(0), jnp.zeros((1, *shape, 1)), TIME[:1])


def test_refuses_labels_that_it_was_not_built_for():
  with pytest.raises(UserError, match="num_classes"):
    UNet(**SMALL).init(jax.random.key(0), X, TIME, LABEL)


# DDPM's sizes.


def layers_of_the_paper():
  """The network of its appendix B for 32 x 32 x 3, layer by layer: the shapes of all weights and biases, scales and biases."""
  dense = lambda ins, outs: [(ins, outs), (outs,)]
  conv = lambda size, ins, outs: [(size, size, ins, outs), (outs,)]
  norm = lambda channels: 2 * [(channels,)]
  attention = norm(256) + dense(256, 3 * 256) + dense(256, 256)  # queries, keys and values are one product

  def block(ins, outs):
    """Two convolutions, time added between them, and a 1 x 1 one past them where the width changes."""
    shortcut = conv(1, ins, outs) if ins != outs else []
    return norm(ins) + conv(3, ins, outs) + dense(512, outs) + norm(outs) + conv(3, outs, outs) + shortcut

  time = dense(128, 512) + dense(512, 512)
  down = conv(3, 3, 128)
  down += 2 * block(128, 128) + conv(3, 128, 128)  # 32 x 32, and to 16 x 16
  down += block(128, 256) + attention + block(256, 256) + attention + conv(3, 256, 256)
  down += 2 * block(256, 256) + conv(3, 256, 256)  # 8 x 8
  down += 2 * block(256, 256)  # 4 x 4
  middle = block(256, 256) + attention + block(256, 256)
  # Each block sees what comes from below beside what the way down has left at its size, the newest first.  The oldest at
  # 16 x 16 is the convolution that came from 32 x 32, of 128 channels.
  up = 3 * block(256 + 256, 256) + conv(3, 256, 256)
  up += 3 * block(256 + 256, 256) + conv(3, 256, 256)
  up += 2 * (block(256 + 256, 256) + attention) + block(256 + 128, 256) + attention + conv(3, 256, 256)
  up += block(256 + 128, 128) + 2 * block(128 + 128, 128)
  return time + down + middle + up + norm(128) + conv(3, 128, 3)


def test_ddpm_for_cifar10_is_the_papers_layer_by_layer():
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  params = jax.eval_shape(ddpm_cifar10().init, jax.random.key(0), x, TIME[:1])
  shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
  assert sorted(shapes) == sorted(layers_of_the_paper())
  assert sum(map(math.prod, shapes)) == 35_746_307
  assert ddpm_cifar10().dropout == 0.1


def test_ddpm_for_256_has_the_papers_114_million():
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  params = jax.eval_shape(ddpm_256().init, jax.random.key(0), x, TIME[:1])
  assert round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6) == 114


# The parts.


class FlaxBlock(nn.Module):
  """The residual block out of flax's layers, step by step."""

  features: int
  scale_shift: bool = True

  @nn.compact
  def __call__(self, x, context):
    shape = (1, 1)
    norm = lambda x: nn.GroupNorm(math.gcd(8, x.shape[-1]))(x)
    h = nn.Conv(self.features, (3, 3))(jax.nn.silu(norm(x)))
    if self.scale_shift:
      scale_shift = nn.Dense(2 * self.features)(context).reshape(len(x), *shape, -1)
      h = norm(h) * (1 + scale_shift[..., : self.features]) + scale_shift[..., self.features :]
    else:
      h = norm(h + nn.Dense(self.features)(context).reshape(len(x), *shape, -1))
    h = nn.Conv(self.features, (3, 3))(jax.nn.silu(h))
    return h + (nn.Conv(self.features, (1, 1))(x) if x.shape[-1] != self.features else x)


@pytest.mark.parametrize(("features", "scale_shift"), [(2, True), (8, True), (8, False)])
def test_residual_block_is_the_one_out_of_flaxs_layers(features, scale_shift):
  context = jax.random.normal(jax.random.key(3), (3, 10))
  ours, theirs = ResidualBlock(features, scale_shift=scale_shift), FlaxBlock(features, scale_shift)
  params = noisy(lambda key, *arguments: ours.init(key, *arguments, True), X, context)
  ours, theirs = lambda *arguments, layer=ours: layer.apply(*arguments, False), theirs.apply
  loss = lambda block: lambda *arguments: jnp.sin(block(*arguments)).sum()
  results = [jax.jit(jax.value_and_grad(loss(block), (0, 1, 2)))(params, X, context) for block in (ours, theirs)]
  assert_equal(*results, tolerance=1e-4)


def test_attention_is_flaxs():
  x = jax.random.normal(jax.random.key(2), (3, 4, 5, 8))
  layer = Attention(heads=2)
  params = noisy(layer.init, x)
  kernel, out = params["params"]["Dense_0"]["kernel"], params["params"]["Dense_1"]
  q, k, v = ({"kernel": part.reshape(8, 2, 4)} for part in jnp.split(kernel, 3, -1))
  project = {"kernel": out["kernel"].reshape(2, 4, 8), "bias": out["bias"]}
  q, k, v = ({**part, "bias": jnp.zeros((2, 4))} for part in (q, k, v))
  theirs = nn.MultiHeadDotProductAttention(num_heads=2)
  h = nn.GroupNorm(8).apply({"params": params["params"]["GroupNorm_0"]}, x).reshape(3, 20, 8)
  expected = theirs.apply({"params": {"query": q, "key": k, "value": v, "out": project}}, h)
  assert_equal(layer.apply(params, x), x + expected.reshape(x.shape))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_by_hand(heads):
  """In float64, one pixel after the other."""
  x = np.random.default_rng(2).normal(size=(2, 2, 3, 8)).astype(np.float32)
  layer = Attention(heads, groups=4, use_bias=True)
  params = noisy(layer.init, x)
  layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
  groups = np.float64(x).reshape(2, 6, 4, 2)
  h = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-6)
  h = h.reshape(2, 6, 8) * layers["GroupNorm_0"]["scale"] + layers["GroupNorm_0"]["bias"]
  qkv = h @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
  q, k, v = (part.reshape(2, 6, heads, -1) for part in np.split(qkv, 3, -1))
  out = np.zeros(q.shape)
  for b, pixel, head in np.ndindex(2, 6, heads):
    weights = np.exp(k[b, :, head] @ q[b, pixel, head] / math.sqrt(8 / heads))
    out[b, pixel, head] = weights / weights.sum() @ v[b, :, head]
  out = out.reshape(2, 6, 8) @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]
  assert_equal(jax.jit(layer.apply)(params, x), x + out.reshape(x.shape))


class _Norm(nn.Module):
  @nn.compact
  def __call__(self, x):
    return group_norm(x, 2, jnp.bfloat16)


def test_group_norm_of_bfloat16_has_float32_statistics():
  """At 10,000 the numbers of bfloat16 are 64 apart: sums and means in it would be off by more than the deviation, here 40."""
  x = jnp.asarray(1e4 + 40 * np.random.default_rng(3).normal(size=(2, 4, 4, 8)), jnp.bfloat16)
  groups = np.asarray(x, np.float64).reshape(2, 16, 2, 4)
  expected = (groups - groups.mean((1, 3), keepdims=True)) / groups.std((1, 3), keepdims=True)
  y, params = jax.jit(_Norm().init_with_output)(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
  np.testing.assert_allclose(np.float64(y), expected.reshape(x.shape), atol=0.02)


def test_attention_does_not_know_where_a_pixel_is():
  x = jax.random.normal(jax.random.key(2), (3, 4, 5, 8))
  layer = Attention(heads=2)
  params = noisy(layer.init, x)
  order = jax.random.permutation(jax.random.key(4), 20)
  shuffle = lambda x: x.reshape(3, 20, 8)[:, order].reshape(x.shape)
  assert_equal(layer.apply(params, shuffle(x)), shuffle(layer.apply(params, x)))
  with pytest.raises(ValueError, match="3 heads"):
    Attention(heads=3).init(jax.random.key(1), x)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches_fold_and_unfold(patch):
  x = np.arange(2 * 6 * 12 * 3).reshape(2, 6, 12, 3)
  folded = np.asarray(space_to_depth(x, patch))
  assert folded.shape == (2, 6 // patch, 12 // patch, patch * patch * 3)
  for i, j in np.ndindex(6 // patch, 12 // patch):
    np.testing.assert_array_equal(folded[:, i, j], x[:, patch * i :, patch * j :][:, :patch, :patch].reshape(2, -1))
  np.testing.assert_array_equal(depth_to_space(folded, patch), x)
  moved = space_to_depth(np.roll(x, patch, 2), patch)
  np.testing.assert_array_equal(moved, np.roll(folded, 1, 2))


@pytest.mark.parametrize("dim", [4, 32])
def test_sinusoidal_embedding_by_hand(dim):
  t = np.array([0.0, 0.5, 3.0, 999.0])
  half = dim // 2
  angles = [[time / 10_000 ** (i / (half - 1)) for i in range(half)] for time in t]
  expected = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
  np.testing.assert_allclose(sinusoidal(jnp.asarray(t), dim), expected, atol=1e-4)
  with pytest.raises(ValueError, match=str(dim + 1)):
    sinusoidal(jnp.asarray(t), dim + 1)
