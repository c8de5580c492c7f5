"""What features are worth: how well a linear classifier reads the labels off them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Probe(NamedTuple):
  """A linear classifier of features [N, D], which are standardised first."""

  mean: jax.Array  # [D]
  scale: jax.Array  # [D]
  weights: jax.Array  # [D, K]
  bias: jax.Array  # [K]


def fit(features, labels, num_classes: int, *, penalty: float = 1e-4, steps: int = 100) -> Probe:
  """Multinomial logistic regression, by L-BFGS on all examples at once.

  Args:
    features: [N, D].
    labels: int [N], 0 to num_classes - 1.
    penalty: times the sum of squared weights, added to the mean cross-entropy in nats.
    steps: of L-BFGS.
  """
  features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
  mean, scale = features.mean(0), jnp.maximum(features.std(0), 1e-3)  # what hardly varies says hardly anything
  x = (features - mean[None]) / scale[None]

  def loss(parameters):
    weights, bias = parameters
    losses = optax.softmax_cross_entropy_with_integer_labels(x @ weights + bias[None], labels)
    return losses.mean() + penalty * jnp.square(weights).sum()

  optimizer = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(loss)

  def step(carry, _):
    parameters, state = carry
    value, grad = value_and_grad(parameters, state=state)
    updates, state = optimizer.update(grad, state, parameters, value=value, grad=grad, value_fn=loss)
    return (optax.apply_updates(parameters, updates), state), value

  start = jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes)
  run = jax.jit(lambda start: jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[0][0])
  return Probe(mean, scale, *run(start))


def predict(probe: Probe, features) -> np.ndarray:
  """The likeliest class of each example, int [N]."""
  x = (jnp.asarray(features, jnp.float32) - probe.mean[None]) / probe.scale[None]
  return np.asarray((x @ probe.weights + probe.bias[None]).argmax(1))


def accuracy(train, test, num_classes: int, **options) -> float:
  """The share of test examples named rightly by a probe fitted on training ones; each is (features [N, D], labels [N])."""
  probe = fit(*train, num_classes, **options)
  return float((predict(probe, test[0]) == np.asarray(test[1])).mean())
