"""Row i of a draw belongs to example i: not to the batch size, the piece it is drawn in, or the device."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import random, rows

LOGITS = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
DRAWS = {
  "normal": lambda key, num: random.normal(key, num, (3,)),
  "uniform": lambda key, num: random.uniform(key, num, (3,), minval=-2.0, maxval=5.0),
  "randint": lambda key, num: random.randint(key, num, (3,), 0, 1000),
  "bernoulli": lambda key, num: random.bernoulli(key, jnp.full((num, 30), 0.5)),
  "categorical": lambda key, num: random.categorical(key, jnp.broadcast_to(LOGITS, (num, 20, 4))),
}
draws = pytest.mark.parametrize("name", DRAWS)


def check_same(ours, theirs):
  """Equal, but for the last bit of a normal, whose inverse error function XLA may evaluate otherwise in another shape."""
  np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=0)


KEY = jax.random.key(3)


@draws
def test_a_row_does_not_depend_on_the_number_of_rows(name):
  draw = jax.jit(DRAWS[name], static_argnums=1)
  whole = np.asarray(draw(KEY, 40))
  for num in (1, 39):
    check_same(draw(KEY, num), whole[:num])
  assert len(np.unique(whole, axis=0)) == 40  # and rows differ


@draws
def test_pieces_of_a_gallery_are_the_gallery(name):
  def piece(first, num):
    with rows.view(first):
      return DRAWS[name](KEY, num)

  traced = jax.jit(piece, static_argnums=1)  # `first` is traced, as in sampling.draw
  whole = jax.jit(DRAWS[name], static_argnums=1)(KEY, 17)
  check_same(np.concatenate([traced(0, 6), traced(6, 6)]), whole[:12])
  check_same(traced(11, 6), whole[11:])


@draws
def test_eight_devices_draw_what_one_draws(name):
  def on_device(key, unused):
    with rows.view(axis="data"):
      return DRAWS[name](key, 4)

  cut = jax.pmap(on_device, "data", in_axes=(None, 0))(KEY, jnp.zeros(8))
  whole = jax.jit(DRAWS[name], static_argnums=1)(KEY, 32)
  check_same(np.asarray(cut).reshape(whole.shape), whole)


def test_the_view_ends_with_its_block():
  with rows.view(5):
    with rows.view(9):
      np.testing.assert_array_equal(rows.indices(2), [9, 10])
    np.testing.assert_array_equal(rows.indices(2), [5, 6])
  with contextlib.suppress(RuntimeError), rows.view(9):
    raise RuntimeError
  np.testing.assert_array_equal(rows.indices(2), [0, 1])


def test_normal_is_normal():
  x = np.asarray(random.normal(KEY, 200, (200,)), np.float64)
  assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
  assert abs(x.var() - 1) < 4 * np.sqrt(2 / x.size)
  assert stats.kstest(x[:, 0], "norm").pvalue > 1e-3  # one entry over the rows: the keys of rows are independent
  assert abs(np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]) < 4 / 200  # so are neighbours


def test_uniform_is_uniform():
  x = np.asarray(DRAWS["uniform"](KEY, 5000), np.float64)
  assert stats.kstest(x.ravel(), "uniform", args=(-2, 7)).pvalue > 1e-3
  assert x.min() >= -2
  assert x.max() < 5


def test_randint_is_uniform_and_stays_in_its_interval():
  x = np.asarray(random.randint(KEY, 5000, (2,), -3, 7))
  counts = np.bincount(x.ravel() + 3, minlength=10)
  assert len(counts) == 10
  assert stats.chisquare(counts).pvalue > 1e-3


def test_bernoulli_has_its_probabilities():
  probs = jnp.array([0.0, 0.1, 0.5, 0.9, 1.0])
  x = np.asarray(random.bernoulli(KEY, jnp.broadcast_to(probs, (20_000, 5))))
  assert x.dtype == bool
  assert not x[:, 0].any()
  assert x[:, 4].all()
  error = np.sqrt(probs * (1 - probs) / 20_000)
  assert np.all(np.abs(x.mean(0) - probs) <= 4 * error)


def test_categorical_has_its_probabilities():
  x = np.asarray(DRAWS["categorical"](KEY, 1000)).ravel()
  assert stats.chisquare(np.bincount(x, minlength=4), np.array([0.1, 0.2, 0.3, 0.4]) * len(x)).pvalue > 1e-3
  impossible = jnp.array([[-jnp.inf, 0.0, -jnp.inf]]).repeat(100, 0)
  assert np.all(np.asarray(random.categorical(KEY, impossible)) == 1)


def test_unlike_keys_draw_unlike_rows():
  key_data = [jax.random.key_data(random.keys(key, 500)) for key in jax.random.split(KEY, 4)]
  assert len(np.unique(np.concatenate(key_data), axis=0)) == 2000


def test_streams_of_seeds_and_purposes_are_distinct():
  purposes = (random.INIT, random.STEP, random.SAMPLE, random.EVALUATE)
  seeds = (0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1)
  streams = [jax.random.key_data(random.stream(np.uint32(seed), purpose)) for seed in seeds for purpose in purposes]
  assert len({tuple(np.asarray(data)) for data in streams}) == len(seeds) * len(purposes)
  # Noise of ten steps: no step repeats another's, nor the gallery's.
  noise = [random.normal(jax.random.fold_in(random.stream(0, random.STEP), step), 2, (2,)) for step in range(10)]
  noise.append(random.normal(random.stream(0, random.SAMPLE), 2, (2,)))
  assert len({np.asarray(one).tobytes() for one in noise}) == 11


def test_a_traced_seed_is_the_same_seed():
  traced = jax.jit(lambda seed: jax.random.key_data(random.stream(seed, random.INIT)))
  np.testing.assert_array_equal(traced(np.uint32(2**32 - 1)), jax.random.key_data(random.stream(2**32 - 1, random.INIT)))


def test_even_numbers_cover_the_interval_and_belong_to_their_rows():
  """Of any 64 in a row, no two are closer and no gap is wider than steps of the golden ratio leave; starts are uniform."""
  drawn = np.asarray(random.evenly(jax.random.key(0), 64), np.float64)
  gaps = np.diff(np.sort(np.append(drawn, drawn.min() + 1)))
  assert drawn.min() >= 0
  assert drawn.max() < 1
  assert gaps.max() < 2.7 / 64  # uniform draws leave gaps of about log(64) / 64
  assert gaps.min() > 0.3 / 64
  np.testing.assert_array_equal(random.evenly(jax.random.key(0), 7), drawn[:7].astype(np.float32))
  with rows.view(first=20):
    np.testing.assert_array_equal(random.evenly(jax.random.key(0), 10), drawn[20:30].astype(np.float32))
  starts = np.array([random.evenly(jax.random.key(seed), 1)[0] for seed in range(400)])
  assert abs(starts.mean() - 0.5) < 4 / np.sqrt(12 * 400)
