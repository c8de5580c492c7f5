"""Every bit comes back, at the length that the likelihood promises, and what is not a whole file of this model is refused."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gm_jax.errors import UserError
from gm_jax.tasks import compress
from tests import sequentials

MODEL = compress.fingerprint("a model", {})
HEADER_BITS = 8 * (compress.START.size + compress.HEADER.size)


def encode(made, images, batch_size=300):
  return compress.encode(made.sequential, made.state, images, model=MODEL, batch_size=batch_size)


def decode(made, content, model=MODEL):
  return compress.decode(made.sequential, made.state, content, model=model)


def coins(logit=0.0):
  """A model of 4 x 3 black and white pixels: x_0 is on with this logit, and each pixel repeats the one before it so surely."""
  made = sequentials.trained("fvsbn")
  weight = jnp.diag(jnp.full(11, -2.0 * logit), 1)
  variables = {"params": {"weight": weight, "bias": jnp.full(12, logit)}}
  return made._replace(state=made.state._replace(average=made.state.average._replace(variables=variables)))


@pytest.mark.parametrize("kind", sequentials.KINDS)
def test_every_bit_comes_back_at_the_promised_length(kind):
  made, images = sequentials.trained(kind), sequentials.pictures(kind, 1000, seed=1)
  images[0], images[1] = 0, 255
  content = encode(made, images)  # three batches and a third of one
  np.testing.assert_array_equal(decode(made, content), images)
  nll = jax.jit(made.model.evaluate)(jax.random.key(0), made.state, {"image": images})["nll"]
  promised = float(np.asarray(nll, np.float64).sum() / np.log(2))
  assert promised - 1 <= 8 * len(content) <= 1.002 * promised + HEADER_BITS + 64


@pytest.mark.parametrize("kind", ["tree", "mixture", "colour network"])
def test_one_image(kind):
  made, images = sequentials.trained(kind), sequentials.pictures(kind, 1, seed=2)
  content = encode(made, images)
  np.testing.assert_array_equal(decode(made, content), images)
  assert encode(made, images) == content, "a function of the images and the model"


def test_images_that_the_model_thinks_impossible_come_back_too():
  """A pixel of probability e^-80 is given one unit of 2^-24; where all is as expected, next to nothing is written."""
  made = coins(logit=-80.0)
  for images in (np.full((5, 4, 3, 1), 255, np.uint8), sequentials.pictures("fvsbn", 200)):
    content = encode(made, images)
    np.testing.assert_array_equal(decode(made, content), images)
    assert 8 * len(content) <= HEADER_BITS + 64 + 24 * images.size
  expected = encode(made, np.zeros((1000, 4, 3, 1), np.uint8))
  assert 8 * len(expected) <= HEADER_BITS + 64
  assert not decode(made, expected).any()


def test_a_fair_coin_takes_a_bit():
  images = sequentials.pictures("fvsbn", 1000)
  assert 0 <= 8 * len(encode(coins(), images)) - images.size - HEADER_BITS <= 64


class Small:
  """A file of few images, made once."""

  made = None

  @classmethod
  def file(cls):
    if cls.made is None:
      cls.made, cls.images = coins(-1.0), sequentials.pictures("fvsbn", 20)
      cls.content = encode(cls.made, cls.images)
    return cls.made, cls.content


@settings(max_examples=200, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_any_byte_that_changes_is_noticed(position, change):
  made, content = Small.file()
  damaged = bytearray(content)
  damaged[int(position * len(content))] ^= change
  with pytest.raises(UserError):
    decode(made, bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(length=st.floats(0, 1, exclude_max=True))
def test_any_byte_that_is_missing_is_noticed(length):
  made, content = Small.file()
  with pytest.raises(UserError):
    decode(made, content[: int(length * len(content))])


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300), ours=st.booleans())
def test_anything_else_is_refused(content, ours):
  head = compress.START.pack(compress.MAGIC, compress.VERSION, zlib.crc32(content)) if ours else b""
  with pytest.raises(UserError):
    decode(Small.file()[0], head + content)


def test_each_refusal_says_why():
  made, content = Small.file()
  other = compress.fingerprint("another model", {})
  cases = {
    "another model": lambda: decode(made, content, model=other),
    "version 2": lambda: decode(made, content[:3] + b"\x02" + content[4:]),
    "damaged": lambda: decode(made, content[:-1]),
    "not a file of compressed images": lambda: decode(made, b"\x89PNG\r\n\x1a\n"),
    "image 1 has other levels": lambda: encode(made, np.stack([Small.images[0], np.full((4, 3, 1), 7, np.uint8)])),
    "variables": lambda: encode(made, np.zeros((2, 4, 4, 1), np.uint8)),
    "float32": lambda: encode(made, np.zeros((2, 4, 3, 1), np.float32)),
    "cannot be compressed": lambda: encode(made, np.zeros((0, 4, 3, 1), np.uint8)),
  }
  for words, call in cases.items():
    with pytest.raises(UserError, match=words):
      call()


def test_a_decoder_that_rounds_otherwise_is_found_out():
  """Everything in the file is as it was; only the decoder's conditionals are a little off, as another machine's may be."""
  made = sequentials.trained("mixture")
  images = sequentials.pictures("mixture", 1000)
  look = lambda given, memory, x, t: made.sequential.look(jax.tree.map(lambda leaf: leaf * (1 + 1e-3), given), memory, x, t)
  elsewhere = made._replace(sequential=made.sequential._replace(look=look))
  with pytest.raises(UserError, match="do not come back by jax"):
    decode(elsewhere, encode(made, images))


def test_a_fingerprint_is_of_every_number_its_place_and_the_name():
  state = {"a": np.arange(6.0), "b": np.zeros(3, np.int32)}
  others = [
    {"a": np.arange(6.0) + [0, 0, 0, 0, 0, 1e-15], "b": state["b"]},
    {"a": state["a"].reshape(2, 3), "b": state["b"]},
    {"a": state["a"], "b": state["b"].astype(np.float32)},
    {"a": state["a"], "c": state["b"]},
    {"a": state["a"]},
  ]
  prints = [compress.fingerprint("x", one) for one in (state, *others)] + [compress.fingerprint("y", state)]
  assert len(set(prints)) == len(prints)
  assert compress.fingerprint("x", jax.tree.map(jnp.asarray, {"b": state["b"]})) == compress.fingerprint("x", {"b": state["b"]})


def test_general_formats_take_what_noise_must_take_and_little_for_nothing():
  rng = np.random.default_rng(0)
  num, shape = 30, (28, 28, 1)
  binary = rng.integers(0, 2, (num, *shape)).astype(np.uint8) * 255
  for images, entropy in ((binary, num * 784 / 8), (rng.integers(0, 256, (num, *shape)).astype(np.uint8), num * 784)):
    for name, size in compress.rivals(images).items():
      assert entropy <= size <= 1.25 * entropy + (250 if name.endswith("sheets") else 250 * num), name
  sizes = compress.rivals(np.zeros((num, *shape), np.uint8))
  assert all(size < 100 * (1 if name.endswith("sheets") else num) for name, size in sizes.items())
  assert sizes["PNG"] == num * compress.rivals(np.zeros((1, *shape), np.uint8))["PNG"]
  assert compress.rivals(np.zeros((2, 4, 4, 2), np.uint8)) == {}
  assert compress.rivals(np.zeros((2, 4, 4, 3), np.uint8)).keys() == sizes.keys()
