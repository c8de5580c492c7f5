"""BEGAN's controller, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.implicit import began
from tests.implicit import players


def turn(game, k, real, fake):
  """Losses, reports, and k afterwards, of a critic that reconstructs `real` and `fake` with these errors."""
  losses, reports, written, _ = players.objective_at(
    game, players.Reading(), -players.points(real), -players.points(fake), {"began": {"k": k}}
  )
  return losses, reports, written["began"]["k"]


def test_the_controller_by_hand():
  game = began.began(gamma=0.5, rate=0.3)
  k = jnp.zeros(())
  # (L(x), L(g)) of two examples -> k afterwards: up, up, at rest, clipped at 0, clipped at 1.
  turns = [
    ([0.8, 1.2], [0.1, 0.3], 0.09),
    ([2.0, 2.0], [0.0, 0.0], 0.39),
    ([1.0, 3.0], [0.5, 1.5], 0.39),
    ([0.0, 0.0], [5.0, 5.0], 0.0),
    ([9.0, 9.0], [0.0, 1.0], 1.0),
    ([2.0, 2.0], [1.0, 2.0], 0.85),
  ]
  for real, fake, after in turns:
    losses, reports, updated = turn(game, k, real, fake)
    np.testing.assert_allclose(losses, np.array(real) - float(k) * np.array(fake), rtol=1e-5, atol=1e-6)  # k before
    balance = abs(0.5 * np.mean(real) - np.mean(fake))
    np.testing.assert_allclose(np.mean(reports["convergence"]), np.mean(real) + balance, rtol=1e-5)
    np.testing.assert_allclose(updated, after, rtol=1e-5, atol=1e-6)
    k = updated


def test_its_rest_is_where_fakes_are_worse_by_gamma():
  game = began.began(gamma=0.5, rate=0.05)
  # The more the critic minds fakes, the worse it reconstructs them: L(g) = 1.5 k while L(x) = 1.
  answer = lambda k, _: (turn(game, k, [1.0], 1.5 * k[None])[2], None)
  k, _ = jax.jit(lambda: jax.lax.scan(answer, jnp.zeros(()), None, 300))()
  np.testing.assert_allclose(1.5 * k, 0.5 * 1.0, rtol=1e-4)


def test_nothing_is_descended_through_k():
  game = began.began(gamma=0.5, rate=0.3)
  real, fake = jnp.array([1.0, 3.0]), jnp.array([0.5, 2.0])
  slopes = jax.grad(lambda errors: turn(game, jnp.asarray(0.4), *errors)[0].sum())((real, fake))
  np.testing.assert_allclose(slopes[0], np.ones(2), rtol=1e-6)
  np.testing.assert_allclose(slopes[1], np.full(2, -0.4), rtol=1e-6)
  after = jax.grad(lambda errors: turn(game, jnp.asarray(0.4), *errors)[2])((real, fake))
  np.testing.assert_array_equal(np.stack(after), np.zeros((2, 2)))
  np.testing.assert_array_equal(game.generator(-fake), fake)
