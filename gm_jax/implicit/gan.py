"""The generative adversarial network: a generator that makes images from noise, a critic that tells them from data.

A `Game` says what each player minimises; the step plays it, the critic at every turn and the generator at every n-th:

  non_saturating   critic  -log D(x) - log(1 - D(g))                  generator  -log D(g)
  wgan_gp          critic  D(g) - D(x) + 10 (|dD / dx| - 1)^2         generator  -D(g)

Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661); Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028).  D is a
logit throughout, and logarithms of its sigmoid are softplus forms, exact at any logit.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import Average, GenerativeModel, Trainable, begin, begin_average, descend, run, update_average


class Game(NamedTuple):
  """What each player minimises.

  Attributes:
    critic: objective `(critic, key, real, fake, train) -> (losses [B], reports)`; the logits are reported as "real" and "fake".
    generator: `(logits of fakes [B]) -> losses [B]`.
    per_example: the critic's objective is defined example by example, so a critic that mixes them (BatchNorm) is refused.
  """

  critic: Callable
  generator: Callable
  per_example: bool = False


class State(NamedTuple):
  turn: jax.Array  # int32 []: how many steps the critic has played
  critic: Trainable
  generator: Trainable
  average: Average  # of the generator: what `sample` reads


def gan(
  generator: nn.Module,
  critic: nn.Module,
  game: Game,
  generator_optimizer: optax.GradientTransformation,
  critic_optimizer: optax.GradientTransformation,
  *,
  num_latents: int,
  n_critic: int = 1,
  decay: float = 0.999,
  pixels: images.Pixels = images.SYMMETRIC,
) -> GenerativeModel:
  """Two players as a generative model; evaluate returns `critic`, the logits of real images.

  Args:
    generator: `(z [B, Z], train) -> images in [-1, 1] [B, H, W, C]`.
    critic: `(images in [-1, 1], train) -> logits [B]`.
    game: `non_saturating()` or `wgan_gp()`.
    generator_optimizer, critic_optimizer: one for each player.
    num_latents: Z.
    n_critic: the generator plays at every `n_critic`-th step.
    decay: of the generator's average, counted in the generator's own steps.
    pixels: how the players see images; `images.POINTS` for 2-D points.
  """

  def generate(generator, key, num, train):
    return generator(random.normal(key, num, (num_latents,)), train)

  def critic_objective(critic, key, real, fake, train):
    losses, reports = game.critic(critic, key, real, fake, train)
    return losses, {**reports, "generator_loss": game.generator(reports["fake"])}

  def generator_objective(generator, key, num, opponent, train):
    judge = lambda critic, key, fake, train: critic(fake, train)
    latent_key, critic_key = jax.random.split(key)
    logits, _ = run(critic, judge, opponent, critic_key, generate(generator, latent_key, num, train), train=train)
    return game.generator(logits), {}

  def init(key, batch):
    data_key, generator_key, fake_key, critic_key = jax.random.split(key, 4)
    real = pixels.read(data_key, batch["image"])
    player = begin(generator, generate, generator_optimizer, generator_key, len(real))
    fake, _ = run(generator, generate, player.variables, fake_key, len(real), train=True)
    opponent = begin(critic, critic_objective, critic_optimizer, critic_key, real, fake)
    if game.per_example and "batch_stats" in opponent.stats:
      raise ValueError(
        "this game penalises the critic's slope at each example, but the critic's BatchNorm makes D(x_i) depend on the other "
        "examples of the batch; give it norm=None"
      )
    return State(jnp.zeros((), jnp.int32), opponent, player, begin_average(player))

  def step(key, state, batch):
    data_key, fake_key, critic_key, generator_key = jax.random.split(key, 4)
    real = pixels.read(data_key, batch["image"])
    fake, _ = run(generator, generate, state.generator.variables, fake_key, len(real), train=True)
    opponent, metrics = descend(critic, critic_objective, critic_optimizer, state.critic, critic_key, real, fake)

    def play(player, average):
      player, _ = descend(
        generator, generator_objective, generator_optimizer, player, generator_key, len(real), opponent.variables
      )
      return player, update_average(average, player, decay)

    turn = state.turn + 1
    if n_critic == 1:
      player, average = play(state.generator, state.average)
    else:
      skip = lambda player, average: (player, average)
      player, average = jax.lax.cond(turn % n_critic == 0, play, skip, state.generator, state.average)
    return State(turn, opponent, player, average), metrics

  def sample(key, state, num, condition=None):
    del condition
    draw = lambda generator: generate(generator, key, num, train=False)
    return pixels.write(nn.apply(draw, generator)(state.average.variables))

  def evaluate(key, state, batch):
    data_key, critic_key = jax.random.split(key)
    judge = lambda critic, key, real, train: critic(real, train)
    real = pixels.read(data_key, batch["image"])
    logits, _ = run(critic, judge, state.critic.variables, critic_key, real, train=False)
    return {"critic": logits}

  return GenerativeModel(init, step, sample, evaluate)


# The games.


def non_saturating() -> Game:
  """-log D(x) - log(1 - D(g)) against -log D(g) (Goodfellow et al. 2014, section 3)."""

  def critic_objective(critic, key, real, fake, train):
    del key
    real, fake = critic(real, train), critic(fake, train)
    return jax.nn.softplus(-real) + jax.nn.softplus(fake), {"real": real, "fake": fake}

  return Game(critic_objective, lambda logits: jax.nn.softplus(-logits))


def wgan_gp(weight: float = 10.0) -> Game:
  """D(g) - D(x) + weight (|dD / dx| - 1)^2 at points between x and g (Gulrajani et al. 2017, algorithm 1)."""

  def critic_objective(critic, key, real, fake, train):
    values = critic(real, train), critic(fake, train)
    slope = slope_between(critic, key, real, fake, train)
    losses = values[1] - values[0] + weight * (slope - 1) ** 2
    return losses, {"real": values[0], "fake": values[1], "slope": slope}

  return Game(critic_objective, lambda values: -values, per_example=True)


def slope_between(critic, key, real, fake, train: bool):
  """|dD / dx| at a uniformly drawn point of the line from each real image to its fake, [B]; a norm over the whole image."""
  mix = random.uniform(key, len(real), (1,) * (real.ndim - 1))
  gradient = jax.grad(lambda x: critic(x, train).sum())(mix * real + (1 - mix) * fake)
  return jnp.sqrt((gradient**2).reshape(len(real), -1).sum(-1) + 1e-12)
