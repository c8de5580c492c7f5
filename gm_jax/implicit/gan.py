"""The generative adversarial network: a generator that makes images from noise, a critic that tells them from data.

A `Game` (games.py) says what each player minimises; the step plays it, the critic at every turn and the generator at every
n-th.  A `GAN` is two players and all that is agreed on between them; a remedy (remedies.py) is a function from GAN to GAN:

    model = gan(generator, critic, games.hinge(), optimizer, optimizer, num_latents=64)
    model = gan(..., remedies=(remedies.packing(2), remedies.unrolled(5)))

Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import Average, GenerativeModel, Trainable, begin, begin_average, descend, run, update_average
from gm_jax.implicit import latents
from gm_jax.implicit.games import Game, non_saturating, slope_between, wgan_gp

__all__ = ["GAN", "Game", "State", "adversarial", "gan", "non_saturating", "slope_between", "wgan_gp"]


class GAN(NamedTuple):
  """Two players and how they play, before it is a model.

  Attributes:
    generator: `(z [B, Z], train, *condition, **told) -> images in the range of `pixels` [B, H, W, C]`.
    critic: `(images, train, *condition, **told) -> D [B]`.
    game: what each minimises.
    generator_optimizer, critic_optimizer: one for each player.
    law: of latents, `key -> z [Z]` of one example.
    num_classes: if the players are told labels, how many there are; the condition is then `(label int [B],)`, else empty.
    n_critic: the generator plays at every `n_critic`-th step,
    n_generator: and then so many times in a row.
    unroll: how many steps the critic is thought to make before it judges the generator.
    views: what the critic sees of an image: functions `(key, turn, train, x, *condition) -> (x, *condition)`, in order.
    pays: what the generator pays besides, on latents of its own: functions `(generator, key, z, train, *condition, **told) ->
      losses [B]`.  What they remember is in collections of the generator, which they make when it is initialised.
    both: what both players pay besides, knowing the latents z [B, Z] behind the fakes (infogan.py); nothing, if None:
      `(gan, play, critic, fake, z, train, *condition, **told) -> (losses [B], reports)`, where `play(critic)` is what the game
      makes one of them pay.  Evaluate reports it of the average's fakes.
    told: what both players are told by name, `turn -> {name: value}`; nothing, unless they grow (progressive.py).
    shown: what data look like to both players at a turn, `(turn, x) -> x`.
    settle: `(gan, variables) -> variables` of the generator, before samples are drawn.
    decay: of the generator's average, counted in the generator's own steps.
    pixels: how the players see images; `images.POINTS` for 2-D points.
  """

  generator: nn.Module
  critic: nn.Module
  game: Game
  generator_optimizer: optax.GradientTransformation
  critic_optimizer: optax.GradientTransformation
  law: Callable
  num_classes: int | None = None
  n_critic: int = 1
  n_generator: int = 1
  unroll: int = 0
  views: tuple = ()
  pays: tuple = ()
  both: Callable | None = None
  told: Callable = lambda turn: {}
  shown: Callable = lambda turn, x: x
  settle: Callable = lambda gan, variables: variables
  decay: float = 0.999
  pixels: images.Pixels = images.SYMMETRIC


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
  num_classes: int | None = None,
  n_critic: int = 1,
  decay: float = 0.999,
  pixels: images.Pixels = images.SYMMETRIC,
  remedies: Sequence[Callable] = (),
) -> GenerativeModel:
  """Two players as a generative model; evaluate returns `critic`, the critic's D of real images.

  Args:
    generator, critic, game, generator_optimizer, critic_optimizer, num_classes, n_critic, decay, pixels: see `GAN`.
    num_latents: Z, of normal latents (`remedies.latents` for others).
    remedies: functions from GAN to GAN, applied in this order.
  """
  players = generator, critic, game, generator_optimizer, critic_optimizer
  options = dict(num_classes=num_classes, n_critic=n_critic, decay=decay, pixels=pixels)
  plan = GAN(*players, latents.normal(num_latents), **options)
  for remedy in remedies:
    plan = remedy(plan)
  return adversarial(plan)


def adversarial(plan: GAN) -> GenerativeModel:
  """The model of two players."""

  def init(key, batch):
    data_key, generator_key, fake_key, critic_key = jax.random.split(key, 4)
    turn = jnp.zeros((), jnp.int32)
    real, condition = _read(plan, data_key, turn, batch)
    player = begin(plan.generator, create, plan.generator_optimizer, generator_key, len(real), turn, condition)
    made, _ = run(plan.generator, generate, player.variables, fake_key, len(real), turn, condition, train=True)
    opponent = begin(plan.critic, critic_objective, plan.critic_optimizer, critic_key, real, made, turn, condition)
    _refuse_mixing(plan, opponent)
    return State(turn, opponent, player, begin_average(player))

  def step(key, state, batch):
    data_key, fake_key, critic_key, generator_key = jax.random.split(key, 4)
    real, condition = _read(plan, data_key, state.turn, batch)
    making = fake_key, len(real), state.turn, condition
    made, _ = run(plan.generator, generate, state.generator.variables, *making, train=True)
    opponent, metrics = move_critic(state.critic, critic_key, real, made, state.turn, condition)

    def play(player, average):
      keys = jax.random.split(generator_key, plan.n_generator) if plan.n_generator > 1 else [generator_key]
      for key in keys:
        against = opponent, real, state.turn, condition
        player, _ = descend(plan.generator, generator_objective, plan.generator_optimizer, player, key, *against)
        average = update_average(average, player, plan.decay)
      return player, average

    turn = state.turn + 1
    if plan.n_critic == 1:
      player, average = play(state.generator, state.average)
    else:
      skip = lambda player, average: (player, average)
      player, average = jax.lax.cond(turn % plan.n_critic == 0, play, skip, state.generator, state.average)
    return State(turn, opponent, player, average), metrics

  def sample(key, state, num, condition=None):
    label_key, latent_key = (key, key) if plan.num_classes is None else jax.random.split(key)
    condition = _labels(plan, label_key, num, condition)
    draw = lambda generator: generate(generator, latent_key, num, state.turn, condition, train=False)[0]
    # For generators that draw more than latents: another key than any row's, which are counted from 0.
    rngs = {"dropout": jax.random.fold_in(latent_key, 2**32 - 1)}
    return plan.pixels.write(nn.apply(draw, plan.generator)(plan.settle(plan, state.average.variables), rngs=rngs))

  def evaluate(key, state, batch):
    data_key, critic_key = jax.random.split(key)
    real, condition = _read(plan, data_key, state.turn, batch)

    def judge(critic, key, real, train):
      real, *given = _seen(plan, key, state.turn, train, real, condition)
      return critic(real, train, *given, **plan.told(state.turn))

    values, _ = run(plan.critic, judge, state.critic.variables, critic_key, real, train=False)
    if plan.both is None:
      return {"critic": values}

    def report(critic, key, made, train):
      fake, z = made
      fake, *given = _seen(plan, key, state.turn, train, fake, condition)
      return pay_both(lambda critic: (jnp.zeros(len(z)), {}), critic, fake, z, state.turn, given, train)[1]

    fake_key, report_key = jax.random.split(jax.random.fold_in(key, 2))
    making = fake_key, len(real), state.turn, condition
    made, _ = run(plan.generator, generate, plan.settle(plan, state.average.variables), *making, train=False)
    reports, _ = run(plan.critic, report, state.critic.variables, report_key, made, train=False)
    return {"critic": values, **reports}

  # The two objectives.

  def generate(generator, key, num, turn, condition, train):
    """Images, and the latents z [num, Z] behind them."""
    z = latents.draw(plan.law, key, num)
    return generator(z, train, *condition, **plan.told(turn)), z

  def besides(generator, key, num, turn, condition, train):
    """What the generator pays besides: losses [B] after losses [B], each with keys of its own."""
    for index, pay in enumerate(plan.pays):
      latent_key, pay_key = jax.random.split(jax.random.fold_in(key, index))
      z = latents.draw(plan.law, latent_key, num)
      yield pay(generator, pay_key, z, train, *condition, **plan.told(turn))

  def create(generator, key, num, turn, condition, train):
    """Makes all that the generator has."""
    list(besides(generator, key, num, turn, condition, train))
    return generate(generator, key, num, turn, condition, train)

  def critic_objective(critic, key, real, made, turn, condition, train):
    fake, z = made
    key, real, fake, *given = _pair(plan, key, turn, train, real, fake, condition)
    play = lambda critic: plan.game.critic(critic, key, real, fake, train, *given, **plan.told(turn))
    losses, reports = pay_both(play, critic, fake, z, turn, given, train)
    return losses, {**reports, "generator_loss": plan.game.generator(reports["fake"])}

  def pay_both(play, critic, fake, z, turn, given, train):
    if plan.both is None:
      return play(critic)
    return plan.both(plan, play, critic, fake, z, train, *given, **plan.told(turn))

  def move_critic(opponent, key, real, made, turn, condition):
    """One step of the critic, which may be differentiated in the fakes."""
    situation = real, made, turn, condition
    opponent, metrics = descend(plan.critic, critic_objective, plan.critic_optimizer, opponent, key, *situation)
    return opponent._replace(params=plan.game.project(opponent.params)), metrics

  def generator_objective(generator, key, opponent, real, turn, condition, train):
    latent_key, critic_key = jax.random.split(key)
    made = generate(generator, latent_key, len(real), turn, condition, train)
    for ahead_key in jax.random.split(jax.random.fold_in(key, 2), plan.unroll):
      opponent, _ = move_critic(opponent, ahead_key, real, made, turn, condition)

    def judge(critic, key, real, made, train):
      fake, z = made
      _, real, fake, *given = _pair(plan, key, turn, train, real, fake, condition)
      play = lambda critic: (plan.game.generator_losses(critic, real, fake, train, *given, **plan.told(turn)), {})
      return pay_both(play, critic, fake, z, turn, given, train)[0]

    losses, _ = run(plan.critic, judge, opponent.variables, critic_key, real, made, train=train)
    for more in besides(generator, jax.random.fold_in(key, 3), len(real), turn, condition, train):
      losses += more
    return losses, {}

  return GenerativeModel(init, step, sample, evaluate)


def _read(plan: GAN, key, turn, batch) -> tuple[jax.Array, tuple]:
  """Images as the players see them, and the condition."""
  real = plan.shown(turn, plan.pixels.read(key, batch["image"]))
  if plan.num_classes is None:
    return real, ()
  if "label" not in batch:
    raise ValueError(f'a GAN of {plan.num_classes} classes needs labels: "label" int [B] in the batch; it has {sorted(batch)}')
  return real, (jnp.asarray(batch["label"]),)


def _labels(plan: GAN, key, num: int, condition) -> tuple:
  """The condition of samples: labels that were asked for, or any, all equally likely."""
  if plan.num_classes is None:
    return ()
  return (random.randint(key, num, (), 0, plan.num_classes) if condition is None else jnp.asarray(condition),)


def _seen(plan: GAN, key, turn, train: bool, x, condition: tuple):
  """What the critic sees of images: `(x, *condition)`."""
  for index, view in enumerate(plan.views):
    x, *condition = view(jax.random.fold_in(key, index), turn, train, x, *condition)
  return x, *condition


def _pair(plan: GAN, key, turn, train: bool, real, fake, condition: tuple):
  """What the critic sees of data and of fakes, of the same condition: `(key for what follows, real, fake, *condition)`."""
  if not plan.views:
    return key, real, fake, *condition
  key, real_key, fake_key = jax.random.split(key, 3)
  real, *_ = _seen(plan, real_key, turn, train, real, condition)
  fake, *given = _seen(plan, fake_key, turn, train, fake, condition)
  return key, real, fake, *given


def _refuse_mixing(plan: GAN, opponent: Trainable) -> None:
  if plan.game.per_example and "batch_stats" in opponent.stats:
    raise ValueError(
      "this game penalises the critic's slope at each example, but the critic's BatchNorm makes D(x_i) depend on the other "
      "examples of the batch; give it norm=None"
    )
