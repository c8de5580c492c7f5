"""The small networks against the same thing written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.convnet import ConvDecoder, ConvEncoder
from gm_jax.networks.mlp import MLP
from tests.networks.tools import assert_all_used, assert_equal, assert_rows_are_their_own, noisy

X = jax.random.normal(jax.random.key(0), (3, 8, 12, 2))
Z = jax.random.normal(jax.random.key(0), (3, 5))


def test_mlp():
  layer = MLP((7, 6, 2), jnp.sin)
  params = noisy(layer.init, Z)
  (a, b, c) = (params["params"][f"Dense_{i}"] for i in range(3))
  affine = lambda layer, x: x @ layer["kernel"] + layer["bias"][None]
  assert_equal(layer.apply(params, Z), affine(c, jnp.sin(affine(b, jnp.sin(affine(a, Z))))))


class Encoder(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.tanh(nn.Conv(3, (4, 4), (2, 2))(x))
    x = nn.tanh(nn.Conv(4, (4, 4), (2, 2))(x))
    return nn.tanh(nn.Dense(6)(x.reshape(3, -1)))


class Decoder(nn.Module):
  @nn.compact
  def __call__(self, z):
    x = nn.tanh(nn.Dense(6)(z))
    x = nn.tanh(nn.Dense(2 * 3 * 4)(x)).reshape(3, 2, 3, 4)
    x = nn.tanh(nn.ConvTranspose(3, (4, 4), (2, 2))(x))
    return nn.ConvTranspose(2, (4, 4), (2, 2))(x)


PAIRS = [
  (ConvEncoder((3, 4), hidden=6, activation=nn.tanh), Encoder(), X),
  (ConvDecoder((8, 12, 2), (4, 3), hidden=6, activation=nn.tanh), Decoder(), Z),
]


@pytest.mark.parametrize(("ours", "theirs", "x"), PAIRS)
def test_encoder_and_decoder_out_of_flaxs_layers(ours, theirs, x):
  params = noisy(lambda key, x: ours.init(key, x, True), x)
  loss = lambda apply: lambda params, x: jnp.sin(apply(params, x)).sum()
  functions = (lambda params, x: ours.apply(params, x, True), theirs.apply)
  results = [jax.jit(jax.value_and_grad(loss(apply), (0, 1)))(params, x) for apply in functions]
  assert_equal(*results)
  assert_all_used(results[0][1])
  assert_rows_are_their_own(lambda x: ours.apply(params, x, True), x)


def test_decoder_refuses_sizes_that_doubling_cannot_make():
  with pytest.raises(UserError, match="30 x 28"):
    ConvDecoder((30, 28, 1)).init(jax.random.key(1), Z, True)
