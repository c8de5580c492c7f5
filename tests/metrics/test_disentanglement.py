"""Codes whose worth is known: factors themselves, mixed, doubled, or none at all."""

import numpy as np
import pytest

from gm_jax.metrics import disentanglement

RNG = np.random.default_rng(0)
FACTORS = RNG.integers(0, 4, (8000, 3))
NOISE = RNG.normal(size=(8000, 3))


def test_factors_themselves_have_the_whole_gap():
  assert disentanglement.mutual_information_gap(2.0 * FACTORS[:, ::-1] - 1, FACTORS) == pytest.approx(1, abs=0.01)


def test_a_factor_told_twice_has_no_gap_and_noise_tells_nothing():
  assert disentanglement.mutual_information_gap(np.concatenate([FACTORS, -FACTORS], 1), FACTORS) == pytest.approx(0, abs=1e-6)
  assert disentanglement.mutual_information_gap(NOISE, FACTORS) < 0.01


def test_information_is_that_of_the_table():
  """A code that says whether the factor is among the upper two of four: log 2 of log 4 nats."""
  codes = (FACTORS[:, :1] >= 2).astype(float)
  table = disentanglement.information_matrix(codes, FACTORS)
  assert table.shape == (1, 3)
  assert table[0, 0] == pytest.approx(np.log(2), abs=2e-3)
  assert table[0, 1:].max() < 2e-3
  assert disentanglement.mutual_information_gap(codes, FACTORS) == pytest.approx(0.5 / 3, abs=2e-3)


def test_concentration_by_hand():
  half = np.log(2) / np.log(3)
  importance = np.array([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]])
  disentangled, complete = disentanglement.concentration(importance)
  assert disentangled == pytest.approx((1 * 1 + 2 * (1 - half)) / 3)
  assert complete == pytest.approx(1)
  assert disentanglement.concentration(np.eye(3)) == (1, 1)
  np.testing.assert_allclose(disentanglement.concentration(np.ones((3, 3))), 0, atol=1e-12)
  assert disentanglement.concentration(np.ones((4, 1)))[0] == pytest.approx(1)  # one factor cannot be confused


def test_dci_tells_axes_from_mixtures():
  split = lambda codes: ((codes[:4000], FACTORS[:4000]), (codes[4000:], FACTORS[4000:]))
  own = disentanglement.dci(*split(FACTORS + 0.1 * NOISE))
  angle = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])
  mixed = disentanglement.dci(*split((FACTORS + 0.1 * NOISE) @ angle))
  blind = disentanglement.dci(*split(NOISE))
  assert own.disentanglement > 0.85
  assert own.completeness > 0.85
  assert own.informativeness > 0.95
  assert mixed.disentanglement < 0.6 * own.disentanglement
  assert mixed.informativeness > 0.95
  assert blind.informativeness < 0.3
  assert own.importance.shape == (3, 3)
