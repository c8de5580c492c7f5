"""BEGAN: the critic is an autoencoder, and a controller keeps the two players in balance.

    L(x) = mean over pixels |x - A(x)|                         A is trained to reconstruct data, and fakes not
    critic     L(x) - k L(g)
    generator  L(g)
    k <- clip(k + rate (gamma E L(x) - E L(g)), 0, 1)          at rest where E L(g) = gamma E L(x)

Berthelot, Schumm and Metz 2017 (https://arxiv.org/abs/1703.10717), section 3.3.  D(x) = -L(x) is a critic like any other
(`networks.began.AutoencodingCritic`): it plays any game, and this game is played by any critic whose values are not positive.
k starts at 0 and is memory: it lives in the critic's collection "began".
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.core import global_mean
from gm_jax.implicit.games import Game


def began(gamma: float = 0.5, rate: float = 0.001) -> Game:
  """The game; reports "k" and the paper's measure of "convergence", E L(x) + |gamma E L(x) - E L(g)|.

  Args:
    gamma: L(g) / L(x) at the equilibrium: lower for sharper images of less variety.
    rate: of the controller, the paper's lambda_k.
  """

  def critic_objective(critic, key, real, fake, train, *condition, **told):
    del key
    real, fake = critic(real, train, *condition, **told), critic(fake, train, *condition, **told)
    surplus = jax.lax.stop_gradient(global_mean(fake.mean() - gamma * real.mean()))  # gamma E L(x) - E L(g), as D = -L
    k = _controlled(critic, lambda k: jnp.clip(k + rate * surplus, 0.0, 1.0))
    everyone = jnp.ones_like(real)
    reports = {"real": real, "fake": fake, "k": k * everyone, "convergence": -real + jnp.abs(surplus) * everyone}
    return k * fake - real, reports

  return Game(critic_objective, lambda values: -values)


def _controlled(critic: nn.Module, update: Callable):
  """k before its update, float32 []."""
  k = critic.get_variable("began", "k", jnp.zeros(()))
  # The objective also runs once to create the parameters, which is not a step.
  critic.put_variable("began", "k", k if critic.is_initializing() else update(k))
  return k
