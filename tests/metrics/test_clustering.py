"""Purity of clusterings that can be counted by hand."""

import itertools

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.metrics import clustering

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
CLUSTERS = np.array([3, 3, 0, 0, 0, 0, 1, 1, 3])


def test_by_hand():
  # Cluster 0 holds labels 0, 1, 1, 2; cluster 1 holds 2, 2; none is in cluster 2; cluster 3 holds 0, 0, 2.
  np.testing.assert_array_equal(clustering.contingency(LABELS, CLUSTERS), [[1, 2, 1], [0, 0, 2], [0, 0, 0], [2, 0, 1]])
  assert clustering.purity(LABELS, CLUSTERS) == (2 + 2 + 2) / 9


def test_it_is_that_of_the_best_naming_of_the_clusters():
  """The share labelled rightly, over all ways to name three clusters by three labels."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    labels, clusters = rng.integers(0, 3, (2, 12))
    best = max(np.mean(np.array(names)[clusters] == labels) for names in itertools.product(range(3), repeat=3))
    assert clustering.purity(labels, clusters) == pytest.approx(best)


def test_names_of_clusters_do_not_count_and_cutting_them_up_never_hurts():
  rng = np.random.default_rng(1)
  labels, clusters = rng.integers(0, 4, (2, 200))
  whole = clustering.purity(labels, clusters)
  assert clustering.purity(labels, np.array([2, 0, 3, 1])[clusters]) == whole
  assert clustering.purity(labels, 2 * clusters + rng.integers(0, 2, 200)) >= whole
  assert clustering.purity(labels, np.arange(200)) == 1


def test_its_ends():
  labels = np.repeat(np.arange(5), 8)
  assert clustering.purity(labels, (labels + 2) % 5) == 1
  assert clustering.purity(labels, np.zeros(40, np.uint8)) == 1 / 5
  assert clustering.purity(labels, np.tile(np.arange(8), 5)) == 1 / 5, "clusters that know nothing"


@pytest.mark.parametrize(
  ("labels", "clusters", "said"),
  [
    ([0, 1], [0], "2 labels and 1 clusters"),
    ([0, -1], [0, 0], "labels of shape"),
    ([0, 1], [0.0, 1.0], "clusters of shape"),
    ([[0], [1]], [0, 1], r"\[2, 1\]"),
    ([], [], "labels of shape"),
  ],
)
def test_bad_input_is_told_in_one_line(labels, clusters, said):
  with pytest.raises(UserError, match=said) as error:
    clustering.purity(labels, clusters)
  assert "\n" not in str(error.value)
