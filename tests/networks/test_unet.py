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
from gm_jax.networks.unet import ResidualBlock, UNet, depth_to_space, double, space_to_depth
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


FIELDS = [{"patch": 2, "num_classes": 3, "out_channels": 5}, {"channels": (8,), "attention": ()}]


def test_starts_at_zero():
  y, _ = jax.jit(UNet((4,), 0, patch=4).init_with_output)(jax.random.key(1), X, TIME)
  np.testing.assert_array_equal(y, np.zeros(X.shape))


def test_a_new_block_is_the_identity():
  for layer, arguments in ((ResidualBlock(2), (TIME[:, None], True)), (Attention(heads=2), ())):
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
  assert_equal(apply(params, X, TIME, jnp.full(3, 3)), without)
  for other in (without, apply(params, X, TIME, (LABEL + 1) % 3)):
    assert (jnp.abs(other - y).max((1, 2, 3)) > 1e-3).all()


def test_dropout_only_while_training():
  apply, params = build(dropout=0.5)
  plain, _ = build()
  y = plain(params, X, TIME)
  assert_equal(apply(params, X, TIME), y)
  dropped = [apply(params, X, TIME, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 2)]
  assert all(jnp.abs(a - b).max() > 1e-2 for a, b in ((dropped[0], y), (dropped[0], dropped[1])))


@pytest.mark.parametrize(("fields", "shape"), [({}, (7, 8)), ({"patch": 2}, (8, 6)), ({"channels": (8, 8, 8, 8)}, (28, 28))])
def test_refuses_images_that_do_not_fit(fields, shape):
  with pytest.raises(UserError, match=f"{shape[0]} x {shape[1]}"):
    UNet(**{**SMALL, **fields}).init(jax.random.key(0), jnp.zeros((1, *shape, 1)), TIME[:1])


def test_refuses_labels_that_it_was_not_built_for():
  with pytest.raises(UserError, match="num_classes"):
    UNet(**SMALL).init(jax.random.key(0), X, TIME, LABEL)


# The parts.


class FlaxBlock(nn.Module):
  """The residual block out of flax's layers, step by step."""

  features: int

  @nn.compact
  def __call__(self, x, context):
    shape = (1, 1)
    norm = lambda x: nn.GroupNorm(math.gcd(8, x.shape[-1]))(x)
    h = nn.Conv(self.features, (3, 3))(jax.nn.silu(norm(x)))
    scale_shift = nn.Dense(2 * self.features)(context).reshape(len(x), *shape, -1)
    h = norm(h) * (1 + scale_shift[..., : self.features]) + scale_shift[..., self.features :]
    h = nn.Conv(self.features, (3, 3))(jax.nn.silu(h))
    return h + (nn.Conv(self.features, (1, 1))(x) if x.shape[-1] != self.features else x)


@pytest.mark.parametrize("features", [2, 8])
def test_residual_block_is_the_one_out_of_flaxs_layers(features):
  context = jax.random.normal(jax.random.key(3), (3, 10))
  ours, theirs = ResidualBlock(features), FlaxBlock(features)
  params = noisy(lambda key, *arguments: ours.init(key, *arguments, True), X, context)
  ours, theirs = lambda *arguments: ResidualBlock(features).apply(*arguments, False), theirs.apply
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


def test_double_repeats_pixels():
  y = double(X)
  for i, j in np.ndindex(16, 16):
    np.testing.assert_array_equal(y[:, i, j], X[:, i // 2, j // 2])


@pytest.mark.parametrize("dim", [4, 32])
def test_sinusoidal_embedding_by_hand(dim):
  t = np.array([0.0, 0.5, 3.0, 999.0])
  half = dim // 2
  angles = [[time / 10_000 ** (i / (half - 1)) for i in range(half)] for time in t]
  expected = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
  np.testing.assert_allclose(sinusoidal(jnp.asarray(t), dim), expected, atol=1e-4)
  with pytest.raises(ValueError, match=str(dim + 1)):
    sinusoidal(jnp.asarray(t), dim + 1)
