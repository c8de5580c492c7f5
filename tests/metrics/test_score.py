"""The score of posteriors whose information is known by hand."""

import math

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.metrics import score

RNG = np.random.default_rng(0)


def test_it_counts_the_classes_that_are_told_apart():
  for classes in (2, 5, 10):
    certain = np.eye(10)[np.arange(40 * classes) % classes]
    assert score.of_probabilities(certain, 1).mean == pytest.approx(classes)
    assert score.of_logits(1e4 * certain, 4) == pytest.approx((classes, 0, 4), abs=1e-9)
  assert score.of_probabilities(np.full((30, 10), 0.1)) == pytest.approx((1, 0, 10))
  assert score.of_logits(np.tile(RNG.normal(size=(1, 10)), (30, 1))) == pytest.approx((1, 0, 10))


def test_by_hand():
  """Two classes, each sample 90 % sure, and classes two to one: exp(H(0.633, 0.367) - H(0.9, 0.1))."""
  p = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
  entropy = lambda q: -(q * math.log(q) + (1 - q) * math.log(1 - q))
  exact = math.exp(entropy(1.9 / 3) - entropy(0.9))
  assert score.of_probabilities(p, 1).mean == pytest.approx(exact)
  assert score.of_logits(np.log(p) + 100 * RNG.normal(size=(3, 1)), 1).mean == pytest.approx(exact)


def test_it_is_at_least_one_and_at_most_the_number_of_classes():
  for scale in (0.1, 1, 10, 100):
    found = score.of_logits(scale * RNG.normal(size=(200, 7)).astype(np.float32), 5)
    assert 1 < found.mean < 7
    assert 0 < found.deviation < found.mean


def test_each_split_has_its_own_marginal():
  """Sorted by class, each split knows but one; of one class, then of three, then of none in particular."""
  assert score.of_probabilities(np.repeat(np.eye(4), 5, axis=0), 4) == pytest.approx((1, 0, 4))
  three = np.concatenate([np.eye(3)[[0] * 6], np.eye(3)[[0, 1, 2] * 2]])
  assert score.of_probabilities(three, 2) == pytest.approx((2, 1, 2))
  assert score.of_probabilities(three, 1).mean == pytest.approx(math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 6))))


def test_no_sample_is_left_out_of_uneven_splits():
  p = np.eye(3)[[0, 0, 1, 1, 2]]  # cut into 3 and 2
  parts = [math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))), 2.0]
  found = score.of_probabilities(p, 2)
  assert found.mean == pytest.approx(np.mean(parts))
  assert found.deviation == pytest.approx(np.std(parts))


@pytest.mark.parametrize(
  ("call", "said"),
  [
    (lambda: score.of_logits([[0.0, np.inf], [0, 1]], 1), "logits: 1 of 4"),
    (lambda: score.of_logits(np.zeros(3), 1), r"\[3\]"),
    (lambda: score.of_logits(np.zeros((3, 2)), 4), "take 1 to 3"),
    (lambda: score.of_logits(np.zeros((3, 2)), 0), "take 1 to 3"),
    (lambda: score.of_probabilities([[0.5, 0.6]], 1), "sum to 1.1"),
    (lambda: score.of_probabilities([[1.5, -0.5]], 1), "from -0.5"),
  ],
)
def test_bad_input_is_told_in_one_line(call, said):
  with pytest.raises(UserError, match=said) as error:
    call()
  assert "\n" not in str(error.value)
