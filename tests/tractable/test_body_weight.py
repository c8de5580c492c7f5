"""The two sexes found without labels: everything that was estimated lies within its standard errors of the truth."""

import jax
import numpy as np
import pytest

from experiments import body_weight


def standard_errors(num, step=1e-4):
  """Of maximum likelihood from `num` examples: the inverse of the Fisher information, which is E[score score^T], by quadrature.

  In the order weight of the first, means, deviations: [5].
  """
  x = np.linspace(-20, 160, 20_001)
  truth = np.array([body_weight.WEIGHTS[0], *body_weight.MEANS, *body_weight.DEVIATIONS])

  def log_prob(values):
    weight, *moments = values
    means, deviations = np.reshape(moments, (2, 2, 1))
    parts = np.exp(-0.5 * ((x[None] - means) / deviations) ** 2) / (deviations * np.sqrt(2 * np.pi))
    return np.log(weight * parts[0] + (1 - weight) * parts[1])

  score = np.stack([(log_prob(truth + bump) - log_prob(truth - bump)) / (2 * step) for bump in step * np.eye(5)])
  information = (score * np.exp(log_prob(truth))) @ score.T * (x[1] - x[0])
  return np.sqrt(np.diag(np.linalg.inv(information)) / num)


@pytest.fixture(scope="module")
def trained():
  config = body_weight.Config()
  model, batch = body_weight.model(config), body_weight.data(config)["train"].arrays
  state = jax.jit(model.init)(jax.random.key(0), batch)
  step = lambda index, state: model.step(jax.random.key(0), state, batch)[0]
  return config, jax.jit(lambda state: jax.lax.fori_loop(0, config.steps, step, state))(state)


def test_weights_means_and_deviations_are_recovered_within_their_errors(trained):
  config, state = trained
  weights, means, deviations = body_weight.recovered(config, state)
  found = np.array([weights[0], *means, *deviations])
  truth = np.array([body_weight.WEIGHTS[0], *body_weight.MEANS, *body_weight.DEVIATIONS])
  errors = standard_errors(config.num_points)
  assert errors[0] < 0.02  # an error that says something
  assert errors.max() < 0.5
  assert np.all(np.abs(found - truth) < 3.5 * errors), (found - truth) / errors
  assert weights.sum() == pytest.approx(1, abs=1e-6)


def test_the_gap_to_the_truth_is_that_of_five_parameters(trained):
  """2 N KL(true || estimated) is chi-square with 5 degrees of freedom, nearly; the truth itself has gap 0."""
  config, state = trained
  x = np.linspace(-20, 160, 20_001)
  batch = {"image": x.astype(np.float32)[:, None, None, None]}
  truth = body_weight.LAW.log_prob(x[:, None])
  nll = np.asarray(jax.jit(body_weight.model(config).evaluate)(jax.random.key(0), state, batch)["nll"], np.float64)
  divergence = np.sum(np.exp(truth) * (truth + nll)) * (x[1] - x[0])
  assert -1e-6 < divergence < 25 / (2 * config.num_points)  # chi-square is above 25 once in 7,000 times


def test_the_law_is_the_one_that_is_described():
  people = body_weight.data(body_weight.Config())["train"].arrays
  for sex, mean, deviation in zip((0, 1), body_weight.MEANS, body_weight.DEVIATIONS):
    weights = people["image"].reshape(-1)[people["label"] == sex]
    assert weights.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(len(weights)))
    assert weights.std() == pytest.approx(deviation, abs=4 * deviation / np.sqrt(2 * len(weights)))


def test_the_picture_is_drawn(trained):
  pytest.importorskip("matplotlib")
  picture = body_weight.pictures(*trained)["density"]
  assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5
