"""The conditionals against the likelihood that they multiply to, and against what they must not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import images
from tests import sequentials


def walk(made, x, unknown):
  """(log-probabilities [B, D, L] by variable, order) of x int32 [B, D]; what is not known yet has `unknown`'s levels."""
  order, given = made.sequential.prepare(made.state)

  def step(carry, t):
    known, memory = carry
    log_probs, memory = made.sequential.look(given, memory, known, t)
    return (known.at[:, order[t]].set(x[:, order[t]]), memory), log_probs

  start = unknown, made.sequential.begin(given, jnp.zeros_like(unknown))
  log_probs = jax.lax.scan(step, start, jnp.arange(len(order)))[1]
  return jnp.zeros((*x.shape, made.sequential.levels)).at[:, order].set(jnp.moveaxis(log_probs, 0, 1)), order


@pytest.mark.parametrize("kind", sequentials.KINDS)
def test_their_product_is_the_likelihood_and_none_knows_what_comes_later(kind):
  made, pictures = sequentials.trained(kind), sequentials.pictures(kind, 10, seed=1)
  x, noise = (images.to_levels(p, made.sequential.levels).reshape(10, -1) for p in (pictures, pictures[::-1]))
  walked = jax.jit(lambda x, unknown: walk(made, x, unknown))
  log_probs, order = walked(x, noise)
  assert sorted(map(int, order)) == [*range(x.shape[1])]
  np.testing.assert_allclose(jax.nn.logsumexp(log_probs, axis=2), 0, atol=1e-5)
  nll = jax.jit(made.model.evaluate)(jax.random.key(0), made.state, {"image": pictures})["nll"]
  np.testing.assert_allclose(-jnp.take_along_axis(log_probs, x[:, :, None], axis=2).sum((1, 2)), nll, rtol=1e-4)
  assert np.ptp(nll) > 0.01, "a model that tells these images apart"
  np.testing.assert_array_equal(walked(x, x)[0], log_probs)
