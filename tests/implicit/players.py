"""Players so small that their games can be played by hand.  Points are images [B, 1, 1, 1], unless said otherwise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images
from gm_jax.implicit import gan
from gm_jax.networks.norm import BatchNorm
from gm_jax.networks.players import Critic


class Dot(nn.Module):
  """A generator of one point, whatever z is."""

  start: float = 1.0

  @nn.compact
  def __call__(self, z, train):
    return jnp.broadcast_to(self.param("theta", nn.initializers.constant(self.start), (1, 1, 1, 1)), (len(z), 1, 1, 1))


class Line(Critic):
  """D(x) = psi x."""

  @nn.compact
  def judge(self, x, train):
    x = x.reshape(len(x), -1)
    return x[:, 0] * self.param("psi", nn.initializers.ones, (1,)), x


class Reading(nn.Module):
  """D(x) = x: the critic whose every answer is chosen."""

  @nn.compact
  def __call__(self, x, train):
    return x[:, 0, 0, 0]


class Table(nn.Module):
  """A number for each of three symbols: every critic there is, on a discrete space."""

  @nn.compact
  def __call__(self, x, train):
    return self.param("logits", nn.initializers.zeros, (3,))[x]


class Normed(nn.Module):
  """A linear critic after BatchNorm."""

  @nn.compact
  def __call__(self, x, train):
    return nn.Dense(1)(BatchNorm()(x.reshape(len(x), -1), train))[:, 0]


def objective_at(game, critic, real, fake, variables=None, condition=()):
  """Losses, reports and what was written, of the critic's objective; and the variables, fresh ones unless given."""
  bound = lambda critic, *args: game.critic(critic, jax.random.key(1), *args, True, *condition)
  if variables is None:
    variables = jax.jit(nn.init(bound, critic))({"params": jax.random.key(0), "dropout": jax.random.key(2)}, real, fake)
  apply = jax.jit(nn.apply(bound, critic, mutable=["counters", "began", "spectral", "batch_stats"]))
  (losses, reports), written = apply(variables, real, fake, rngs={"dropout": jax.random.key(3)})
  return losses, reports, written, variables


def points(values):
  return jnp.asarray(values, jnp.float32).reshape(-1, 1, 1, 1)


def duel(game, optimizer, *remedies, generator=None, critic=None, **options):
  """A GAN of one point against a line; what it has learnt are two numbers."""
  players = generator or Dot(), critic or Line()
  options = {"num_latents": 1, "pixels": images.POINTS, "remedies": remedies, **options}
  return gan.gan(*players, game, optimizer, optimizer, **options)


def walk(model, batch, steps):
  """The states after 1, 2, ... `steps` steps, stacked; in one program."""

  def advance(state, key):
    state, metrics = model.step(key, state, batch)
    return state, (state, metrics)

  run = lambda: jax.lax.scan(advance, model.init(jax.random.key(0), batch), jax.random.split(jax.random.key(1), steps))[1]
  return jax.jit(run)()


def orbit(*remedies, game, steps=300, optimizer=None):
  """theta and psi, [steps, 2], of the duel with data at 0."""
  model = duel(game, optimizer or optax.sgd(0.1, 0.3), *remedies)
  states, _ = walk(model, {"image": points([0.0, 0.0])}, steps)
  theta, psi = (jax.tree.leaves(player.params)[0].reshape(steps) for player in (states.generator, states.critic))
  return jnp.stack([theta, psi], 1)
