"""BEGAN: a critic's judgement is its mean absolute error, and its layers are the paper's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.began import AutoencodingCritic, Decoder, Encoder
from gm_jax.networks.flat import Flatten
from tests.networks.tools import assert_equal, noisy

X = jax.random.uniform(jax.random.key(0), (3, 8, 12, 2), minval=-1)
Z = jax.random.normal(jax.random.key(1), (3, 5))


class Unflatten(nn.Module):
  """The inverse of `Flatten`, but for `off`, which it adds to the first example's first pixel."""

  off: float

  def __call__(self, codes, train):
    return codes.at[0, 0].add(self.off).reshape(-1, 8, 12, 2)


@pytest.mark.parametrize("off", [0.0, 0.7, -0.7])
def test_an_image_is_judged_by_the_mean_absolute_error_of_its_reconstruction(off):
  critic = AutoencodingCritic(Flatten(), Unflatten(off))
  logits, codes = critic.apply({}, X, True, method="judge")
  np.testing.assert_allclose(logits, [-abs(off) / (8 * 12 * 2), 0, 0], atol=1e-7)
  np.testing.assert_array_equal(codes, X.reshape(3, -1))


def test_judgement_and_reconstruction_agree():
  critic = AutoencodingCritic(Encoder(5, base=2), Decoder((8, 12, 2), base=2))
  params = noisy(lambda key, x: critic.init(key, x, True), X)
  again = critic.apply(params, X, True, method="reconstruct")
  expected = [np.mean([abs(a - b) for a, b in zip(np.ravel(x), np.ravel(y))]) for x, y in zip(X, again)]
  assert_equal(-critic.apply(params, X, True), np.array(expected))
  codes = Encoder(5, base=2).apply({"params": params["params"]["encoder"]}, X, True)
  assert_equal(again, Decoder((8, 12, 2), base=2).apply({"params": params["params"]["decoder"]}, codes, True))


class PlainEncoder(nn.Module):
  @nn.compact
  def __call__(self, x):
    conv = lambda features, strides: nn.Conv(features, (3, 3), strides)
    for features, strides in ((2, 1), (2, 1), (2, 1), (4, 2), (4, 1), (4, 1), (6, 2), (6, 1), (6, 1)):
      x = nn.elu(conv(features, (strides, strides))(x))
    return nn.Dense(5)(x.reshape(3, -1))


class PlainDecoder(nn.Module):
  @nn.compact
  def __call__(self, z):
    x = nn.Dense(2 * 3 * 2)(z).reshape(3, 2, 3, 2)
    for size in ((2, 3), (4, 6), (8, 12)):
      x = jax.image.resize(x, (3, *size, 2), "nearest")
      x = nn.elu(nn.Conv(2, (3, 3))(x))
      x = nn.elu(nn.Conv(2, (3, 3))(x))
    return nn.Conv(2, (3, 3))(x)


@pytest.mark.parametrize(
  ("ours", "plain", "x"),
  [(Encoder(5, base=2), PlainEncoder(), X), (Decoder((8, 12, 2), base=2), PlainDecoder(), Z)],
)
def test_encoder_and_decoder_out_of_flaxs_layers(ours, plain, x):
  """Channels grow by `base` at each halving in the encoder, and stay in the decoder."""
  params = noisy(lambda key, x: ours.init(key, x, True), x)
  functions = (lambda params, x: ours.apply(params, x, True), plain.apply)
  results = [jax.jit(jax.value_and_grad(lambda p, x, f=f: jnp.sin(f(p, x)).sum(), (0, 1)))(params, x) for f in functions]
  assert_equal(*results)


def test_refuses_what_it_cannot_halve():
  with pytest.raises(UserError, match="10 x 12"):
    Decoder((10, 12, 1)).init(jax.random.key(0), Z, True)
  with pytest.raises(UserError, match="8 x 6"):
    Encoder().init(jax.random.key(0), X[:, :, :6], True)
