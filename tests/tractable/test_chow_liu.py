"""The tree against all trees, and mutual information against the definition."""

import itertools
import math

import jax
import numpy as np
import pytest

from gm_jax import images, testing
from gm_jax.tractable import chow_liu

SHAPE = (1, 5, 1)


def pictures(num, seed=0, levels=2):
  """Five variables that hang together in no particular order: uint8 [num, 1, 5, 1]."""
  rng = np.random.default_rng(seed)
  x = rng.integers(0, levels, (num, 5))
  for child, parent, copied in ((3, 0, 0.8), (1, 3, 0.6), (4, 3, 0.7), (2, 4, 0.5)):
    x[:, child] = np.where(rng.uniform(size=num) < copied, x[:, parent], x[:, child])
  return np.asarray(images.from_levels(x.reshape(num, *SHAPE), levels)), x


def learnt(model, image):
  state = model.init(jax.random.key(0), {"image": image})
  return jax.jit(model.step)(jax.random.key(0), state, {"image": image})


def information(x, a, b):
  pairs = np.zeros((x.max() + 1, x.max() + 1))
  np.add.at(pairs, (x[:, a], x[:, b]), 1 / len(x))
  outer = pairs.sum(1, keepdims=True) * pairs.sum(0, keepdims=True)
  return (pairs[pairs > 0] * np.log(pairs[pairs > 0] / outer[pairs > 0])).sum()


@pytest.mark.parametrize("levels", [2, 3])
def test_mutual_information_is_the_definition(levels):
  image, x = pictures(200, levels=levels)
  state, _ = learnt(chow_liu.chow_liu(levels), image)
  got = chow_liu.mutual_information(state.pairs.reshape(5, levels, 5, levels))
  expected = np.array([[information(x, a, b) for b in range(5)] for a in range(5)])
  np.testing.assert_allclose(got, expected, atol=2e-6)


def trees(num):
  """All labelled trees, as sets of edges, by their Pruefer sequences."""
  for code in itertools.product(range(num), repeat=num - 2):
    degree = [1 + code.count(node) for node in range(num)]
    edges = []
    for node in code:
      leaf = degree.index(1)
      edges.append((leaf, node))
      degree[leaf] -= 1
      degree[node] -= 1
    edges.append(tuple(node for node in range(num) if degree[node] == 1))
    yield edges


@pytest.mark.parametrize("seed", range(4))
def test_no_tree_is_heavier(seed):
  weights = np.random.default_rng(seed).uniform(size=(5, 5)).astype(np.float32)
  weights = weights + weights.T
  order, parents = map(np.asarray, chow_liu.spanning_tree(weights))
  assert sorted(order) == list(range(5))
  assert order[0] == parents[0] == 0
  for place, node in enumerate(order[1:], 1):
    assert parents[node] in order[:place]
  ours = sum(weights[node, parents[node]] for node in order[1:])
  every = [sum(weights[a, b] for a, b in edges) for edges in trees(5)]
  assert len(every) == 125
  np.testing.assert_allclose(ours, max(every), rtol=1e-6)


@pytest.mark.parametrize("levels", [2, 3])
def test_the_likelihood_is_entropies_less_information(levels):
  """Chow & Liu's identity: with next to no smoothing, nll = sum_d H(x_d) - sum over the tree's edges of I."""
  image, x = pictures(4000, levels=levels)
  state, metrics = learnt(chow_liu.chow_liu(levels, weight=1e-6), image)
  tables = chow_liu.fit(state, 1e-6)
  edges = [(node, int(tables.parents[node, 0])) for node in np.asarray(tables.order[1:])]
  entropy = lambda column: -sum(p * math.log(p) for p in np.bincount(column) / len(column))
  expected = sum(entropy(x[:, d]) for d in range(5)) - sum(information(x, *edge) for edge in edges)
  np.testing.assert_allclose(metrics["nll"], expected, atol=1e-4)
  assert {frozenset(edge) for edge in edges} == {frozenset(edge) for edge in ((3, 0), (1, 3), (4, 3), (2, 4))}


@pytest.mark.parametrize("levels", [2, 3])
def test_sums_to_one_over_all_images(levels):
  image, _ = pictures(60, levels=levels)
  model = chow_liu.chow_liu(levels)
  state, _ = learnt(model, image)
  log_prob = lambda x: -model.evaluate(jax.random.key(0), state, {"image": images.from_levels(x, levels)})["nll"]
  assert abs(testing.total_probability(log_prob, SHAPE, levels) - 1) < 1e-5


def test_sums_to_one_over_all_three_by_three_images():
  image = np.random.default_rng(0).integers(0, 2, (30, 3, 3, 1)).astype(np.uint8) * 255
  model = chow_liu.chow_liu()
  state, _ = learnt(model, image)
  log_prob = lambda x: -model.evaluate(jax.random.key(0), state, {"image": images.from_levels(x, 2)})["nll"]
  assert abs(testing.total_probability(log_prob, (3, 3, 1)) - 1) < 1e-5


def test_on_real_digits_it_is_the_published_tree(shared_data):
  """Static MNIST, 134.99 nats (Larochelle & Murray 2011, table 1)."""
  from gm_jax import data

  train, test = (data.tfds_images("binarized_mnist", split, shared_data).arrays for split in ("train", "test"))
  model = chow_liu.chow_liu()
  state, _ = learnt(model, train["image"])
  nll = jax.jit(model.evaluate)(jax.random.key(0), state, {"image": test["image"]})["nll"]
  assert abs(float(nll.mean()) - 134.99) < 0.02


def test_too_few_levels_are_refused():
  with pytest.raises(ValueError, match="levels 1"):
    chow_liu.chow_liu(1)
