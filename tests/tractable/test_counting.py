"""Networks learnt by counting: tables written out by hand, enumeration of all images, and what smoothing promises."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import images, testing
from gm_jax.tractable import chow_liu, counting

SHAPE = (3, 3, 1)
GRAPHS = {
  "factorised": counting.factorised(SHAPE),
  "chain": counting.markov_chain(SHAPE),
  "two neighbours": counting.neighbourhood(SHAPE, 2),
  "ten neighbours": counting.neighbourhood(SHAPE, 10),
  "complete": counting.complete(SHAPE),
}
graphs = pytest.mark.parametrize("graph", GRAPHS)


def pictures(num, seed=0, shape=SHAPE, levels=2):
  """Blurred noise, so that neighbours agree: uint8 [num, *shape]."""
  noise = np.random.default_rng(seed).normal(size=(num, *shape))
  noise += np.roll(noise, 1, 1) + np.roll(noise, 1, 2) + 0.3
  return np.asarray(images.from_levels(np.clip(np.round(noise * (levels - 1) / 4 + (levels - 1) / 2), 0, levels - 1), levels))


def learnt(model, image, batches=1):
  state = jax.jit(model.init)(jax.random.key(0), {"image": image})
  for piece in np.split(image, batches):
    state, metrics = jax.jit(model.step)(jax.random.key(0), state, {"image": piece})
  return state, metrics


def log_prob_of(model, state, levels=2):
  evaluate = jax.jit(model.evaluate)
  return lambda x: -evaluate(jax.random.key(0), state, {"image": images.from_levels(x, levels)})["nll"]


def by_hand(parents, x, of, weight=1.0, back_off=()):
  """log p of the rows `of` [M, D], learnt from the rows x [N, D], all 0 or 1: every count is made by looking."""
  total = np.zeros(len(of))
  for index, known in enumerate(parents):
    orders = [*(order for order in back_off if order < len(known)), len(known)] if known else []
    for number, row in enumerate(of):
      same = x[:, index] == row[index]
      p = (same.sum() + 1) / (len(x) + 2)
      for order in orders:
        match = (x[:, list(known[:order])] == row[list(known[:order])]).all(1)
        p = ((match & same).sum() + weight * p) / (match.sum() + weight)
      total[number] += math.log(p)
  return total


@graphs
def test_sums_to_one_over_all_images(graph):
  model = counting.counted(GRAPHS[graph])
  state, _ = learnt(model, pictures(40))
  assert abs(testing.total_probability(log_prob_of(model, state), SHAPE) - 1) < 1e-5


@pytest.mark.parametrize("graph", ["chain", "two neighbours"])
def test_sums_to_one_over_all_images_of_three_levels_and_three_channels(graph):
  shape = (1, 2, 3)
  parents = counting.markov_chain(shape) if graph == "chain" else counting.neighbourhood(shape, 2)
  model = counting.counted(parents, levels=3)
  state, _ = learnt(model, pictures(50, shape=shape, levels=3))
  assert abs(testing.total_probability(log_prob_of(model, state, 3), shape, levels=3) - 1) < 1e-5


@graphs
def test_probabilities_are_ratios_of_counts_backed_off(graph):
  parents, train, test = GRAPHS[graph], pictures(60), pictures(20, seed=1)
  flat = lambda array: (array.reshape(len(array), -1) > 0).astype(int)
  for weight in (1.0, 0.25):
    model = counting.counted(parents, weight=weight)
    state, metrics = learnt(model, train)
    np.testing.assert_allclose(
      log_prob_of(model, state)(flat(test).reshape(-1, *SHAPE)), by_hand(parents, flat(train), flat(test), weight), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["nll"], -by_hand(parents, flat(train), flat(train), weight).mean(), rtol=1e-5)


def test_counts_are_backed_off_through_every_order_that_is_named():
  shape = (2, 3, 1)
  parents, back_off = counting.complete(shape), (1, 3)
  train, test = (pictures(30, seed, shape).reshape(30, -1) // 255 for seed in (0, 1))
  model = counting.counted(parents, back_off=back_off)
  state, _ = learnt(model, (train * 255).reshape(-1, *shape).astype(np.uint8))
  got = log_prob_of(model, state)(test.reshape(-1, *shape))
  np.testing.assert_allclose(got, by_hand(parents, train, test, back_off=back_off), rtol=1e-5)


def test_batches_add_up():
  model = counting.counted(GRAPHS["ten neighbours"])
  image = pictures(60)
  np.testing.assert_array_equal(learnt(model, image, 6)[0].counts, learnt(model, image)[0].counts)
  tree = chow_liu.chow_liu()
  np.testing.assert_array_equal(learnt(tree, image, 6)[0].pairs, learnt(tree, image)[0].pairs)


def test_a_pixel_never_seen_on_costs_a_finite_number_of_nats():
  dark = np.zeros((30, *SHAPE), np.uint8)
  bright = np.full((1, *SHAPE), 255, np.uint8)
  for model in (*(counting.counted(parents) for parents in GRAPHS.values()), chow_liu.chow_liu()):
    state, _ = learnt(model, dark)
    nll = float(model.evaluate(jax.random.key(0), state, {"image": bright})["nll"][0])
    assert 9 * math.log(2) < nll < 9 * math.log(32 * 31)


def test_the_complete_graph_is_the_table_of_the_joint():
  """With next to no smoothing, an image's probability is the share of the training set that it is."""
  model = counting.counted(GRAPHS["complete"], weight=1e-6)
  image = pictures(400)
  state, _ = learnt(model, image)
  every = testing.all_states(SHAPE)
  got = np.exp(np.asarray(log_prob_of(model, state)(every)))
  codes = (image.reshape(400, -1) > 0) @ 2 ** np.arange(8, -1, -1)
  # The first pixel has no parents, so its frequencies are Laplace's, whatever the weight.
  first = every.reshape(-1, 9)[:, 0]
  on = (image.reshape(400, -1)[:, 0] > 0).sum()
  laplace = np.where(first, (on + 1) / 402 / (on / 400), (401 - on) / 402 / (1 - on / 400))
  np.testing.assert_allclose(got, np.bincount(codes, minlength=512) / 400 * laplace, atol=2e-6)


@graphs
def test_each_variable_depends_on_its_parents_alone(graph):
  """The conditional p(x_d | x_<d), by enumeration, moves with its parents and with nothing else before it."""
  parents = GRAPHS[graph]
  model = counting.counted(parents)
  state, _ = learnt(model, pictures(40))
  joint = np.exp(np.asarray(log_prob_of(model, state)(testing.all_states(SHAPE)), np.float64)).reshape([2] * 9)
  for index, known in enumerate(parents):
    prefix = joint.sum(tuple(range(index + 1, 9)))
    conditional = prefix[..., 1] / prefix.sum(-1)
    moves = {axis for axis in range(index) if np.abs(np.diff(conditional, axis=axis)).max() > 1e-5}
    assert moves <= {*known}
    assert not known or known[0] in moves


@pytest.mark.parametrize("make", ["chain", "ten neighbours", "chow liu"])
def test_samples_follow_the_law(make):
  """Frequencies of all 512 images in 40,000 draws against their probabilities: chi-square within five deviations."""
  model = chow_liu.chow_liu() if make == "chow liu" else counting.counted(GRAPHS[make])
  state, _ = learnt(model, pictures(60))
  num = 40_000
  drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, num)).reshape(num, -1) > 0
  seen = np.bincount(drawn @ 2 ** np.arange(8, -1, -1), minlength=512)
  expected = num * np.exp(np.asarray(log_prob_of(model, state)(testing.all_states(SHAPE)), np.float64))
  chi_square = ((seen - expected) ** 2 / expected).sum()
  assert abs(chi_square - 511) < 5 * math.sqrt(2 * 511)


def test_gibbs_conditionals_are_those_of_the_joint():
  parents = GRAPHS["ten neighbours"]
  model = counting.counted(parents)
  state, _ = learnt(model, pictures(40))
  tables = counting.fit(parents, state)
  every = jnp.asarray(testing.all_states(SHAPE).reshape(512, 9))
  joint = np.exp(np.asarray(counting.log_prob(tables, every), np.float64))
  conditional = jax.jit(counting.full_conditional(tables, parents))
  for index in range(9):
    on, off = (joint[np.where(np.arange(9) == index, level, np.asarray(every)) @ 2 ** np.arange(8, -1, -1)] for level in (1, 0))
    np.testing.assert_allclose(jax.nn.softmax(conditional(every, index))[:, 1], on / (on + off), rtol=1e-4)


def test_neighbours_are_causal_near_and_inside():
  for shape in ((3, 4, 1), (2, 3, 3)):
    parents = counting.neighbourhood(shape, 10)
    for index, known in enumerate(parents):
      row, column, channel = np.unravel_index(index, shape)
      assert len({*known}) == len(known)
      for parent in known:
        i, j, k = np.unravel_index(parent, shape)
        assert parent < index
        assert (i, j) == (row, column) or (k == channel and max(abs(i - row), abs(j - column)) <= 2)
    first = [parents[np.ravel_multi_index((1, 1, 0), shape)][0], np.ravel_multi_index((1, 0, 0), shape)]
    assert first[0] == first[1]
  assert [len(known) for known in counting.neighbourhood((5, 5, 1), 10)][12] == 10


def test_parameters_are_counted():
  assert counting.num_parameters(counting.complete((1, 1, 3)), 256) == 256**3 - 1
  assert counting.num_parameters(counting.complete((2, 2, 1)), 3) == 3**4 - 1
  assert counting.num_parameters(counting.factorised((28, 28, 1)), 2) == 784
  assert counting.num_parameters(counting.markov_chain((28, 28, 1)), 2) == 2 * 784 - 1
  for parents in GRAPHS.values():
    state, _ = learnt(counting.counted(parents), pictures(4))
    used = {(index, tuple(x[list(known)])) for x in testing.all_states((9,)) for index, known in enumerate(parents)}
    assert counting.num_parameters(parents, 2) == len(used)
    assert state.counts.size >= 2 * len(used)


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (dict(parents=[(), (2,), ()]), "variable 1"),
    (dict(parents=[(0,)]), "variable 0"),
    (dict(parents=[(), (0,)], weight=0.0), "weight"),
    (dict(parents=[(), (0,)], levels=[2]), "levels"),
    (dict(parents=[(), (0,), (1, 0)], back_off=(2,)), "back_off"),
    (dict(parents=counting.complete((6, 6, 1))), "contexts"),
  ],
  ids=["later parent", "own parent", "weight", "levels", "order", "size"],
)
def test_what_cannot_be_counted_is_refused(arguments, named):
  with pytest.raises(ValueError, match=named):
    counting.counted(**arguments)


def test_a_graph_of_another_size_is_refused():
  with pytest.raises(ValueError, match="4 lists of parents"):
    counting.counted(counting.factorised((2, 2, 1))).init(jax.random.key(0), {"image": jnp.zeros((2, 3, 3, 1), jnp.uint8)})
