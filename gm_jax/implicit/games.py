"""What the two players of a GAN minimise: any of these games is played by any architecture.

D is the critic's output, one number for each example; where a logarithm is taken it is a logit, and logarithms of its sigmoid
are softplus forms, exact at any logit.  x is data, g is generated.

                   critic                                       generator            paper
  minimax          -log D(x) - log(1 - D(g))                    log(1 - D(g))        Goodfellow et al. 2014, equation 1
  non_saturating   -log D(x) - log(1 - D(g))                    -log D(g)            the same, section 3
  least_squares    (D(x) - 1)^2 / 2 + D(g)^2 / 2                (D(g) - 1)^2 / 2     Mao et al. 2017, equation 2
  hinge            max(0, 1 - D(x)) + max(0, 1 + D(g))          -D(g)                Lim and Ye 2017
  wgan             D(g) - D(x), every parameter in [-c, c]      -D(g)                Arjovsky et al. 2017, algorithm 1
  wgan_gp          D(g) - D(x) + 10 (|dD / dx| - 1)^2           -D(g)                Gulrajani et al. 2017, algorithm 1
  dragan           non_saturating + 10 (|dD / dx| - 1)^2        -log D(g)            Kodali et al. 2017

and `began`, whose critic is an autoencoder, in began.py.  `penalised` adds to a game what its critic pays besides: `r1` goes
with any of them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import DenyList

from gm_jax import random
from gm_jax.core import global_mean


class Game(NamedTuple):
  """What each player minimises.

  A critic is called `critic(x, train, *condition, **told) -> D [B]`.  The condition is empty, or the labels int [B] of a
  conditional GAN, the same for real and fake; what else it is told (the level of a growing one) comes by name.

  Attributes:
    critic: objective `(critic, key, real, fake, train, *condition, **told) -> (losses [B], reports)`; what it says of real and
      fake is reported as "real" and "fake".
    generator: `(D of fakes [B]) -> losses [B]`.
    per_example: the critic's objective is defined example by example, so a critic that mixes them (BatchNorm) is refused.
    project: `params -> params`, where the critic's parameters are taken after each of its steps.
    persuade: `(critic, real, fake, train, *condition, **told) -> losses [B]`, if the generator minimises something else than a
      function of D of its fakes; `generator` then only reports.
  """

  critic: Callable
  generator: Callable
  per_example: bool = False
  project: Callable = lambda params: params
  persuade: Callable | None = None

  def generator_losses(self, critic, real, fake, train: bool, *condition, **told):
    """What the generator minimises, [B]."""
    if self.persuade is None:
      return self.generator(critic(fake, train, *condition, **told))
    return self.persuade(critic, real, fake, train, *condition, **told)


def compare(on_real: Callable, on_fake: Callable, generator: Callable) -> Game:
  """The game of three functions of D, [B] -> [B]: what the critic pays on data and on fakes, and the generator on fakes."""

  def critic_objective(critic, key, real, fake, train, *condition, **told):
    del key
    real, fake = critic(real, train, *condition, **told), critic(fake, train, *condition, **told)
    return on_real(real) + on_fake(fake), {"real": real, "fake": fake}

  return Game(critic_objective, generator)


def minimax() -> Game:
  """The generator undoes what the critic wants: it saturates, the gradient vanishes where the critic is sure of a fake."""
  return non_saturating()._replace(generator=lambda logits: -jax.nn.softplus(logits))


def non_saturating() -> Game:
  """The generator wants its images called real: the gradient is largest where the critic is sure of a fake."""
  return compare(lambda real: jax.nn.softplus(-real), jax.nn.softplus, lambda fake: jax.nn.softplus(-fake))


def least_squares(fake: float = 0.0, real: float = 1.0, wanted: float = 1.0) -> Game:
  """Squares instead of logarithms; D is no logit here, any number may come out.

  Args:
    fake, real: what the critic should answer, the paper's a and b.
    wanted: what the generator wants it to answer, c.  At (-1, 1, 0) the best generator descends Pearson's chi square.
  """
  half_square = lambda target: lambda values: jnp.square(values - target) / 2
  return compare(half_square(real), half_square(fake), half_square(wanted))


def hinge() -> Game:
  """The critic is content once it is right by a margin of 1."""
  return compare(lambda real: jax.nn.relu(1 - real), lambda fake: jax.nn.relu(1 + fake), lambda fake: -fake)


def wgan(clip: float = 0.01) -> Game:
  """The critic is kept Lipschitz by brute force: all its parameters, biases too, are clipped to [-clip, clip] after a step."""
  project = lambda params: jax.tree.map(lambda leaf: jnp.clip(leaf, -clip, clip), params)
  return _wasserstein()._replace(project=project)


def wgan_gp(weight: float = 10.0) -> Game:
  """The critic is asked for slope 1 at points between x and g, each drawn uniformly from its own line."""
  return penalised(_wasserstein(), unit_slope(weight, between))


def dragan(weight: float = 10.0, spread: float = 0.5) -> Game:
  """The critic is asked for slope 1 around data alone, up to `spread` standard deviations away."""
  return penalised(non_saturating(), unit_slope(weight, near_data(spread)))


def _wasserstein() -> Game:
  return compare(lambda real: -real, lambda fake: fake, lambda fake: -fake)


# What a critic pays besides.


def penalised(game: Game, penalty: Callable) -> Game:
  """A game whose critic also pays a penalty that is a function of its slope at each example.

  Args:
    game: any, penalised ones included.
    penalty: `(critic, key, real, fake, train, *condition, **told) -> (losses [B], reports)`.
  """

  def critic_objective(critic, key, real, fake, train, *condition, **told):
    game_key, penalty_key = jax.random.split(key)
    losses, reports = game.critic(critic, game_key, real, fake, train, *condition, **told)
    penalties, more = penalty(critic, penalty_key, real, fake, train, *condition, **told)
    return losses + penalties, {**reports, **more}

  return game._replace(critic=critic_objective, per_example=True)


def unit_slope(weight: float, where: Callable) -> Callable:
  """The penalty weight (|dD / dx| - 1)^2 at the points `where(key, real, fake)`, [B, ...]; reports the "slope"."""

  def penalty(critic, key, real, fake, train, *condition, **told):
    found = slope(critic, where(key, real, fake), train, *condition, **told)
    return weight * (found - 1) ** 2, {"slope": found}

  return penalty


def r1(game: Game, gamma: float = 10.0, every: int = 1) -> Game:
  """`game` and gamma / 2 |dD / dx|^2 at data, with which GANs converge locally (Mescheder et al. 2018).

  Args:
    game: any.
    gamma: the weight.
    every: pay only at each so-many-th step, and then for all of them (lazily, Karras et al. 2020); reports "r1", which is zero
      at the others.
  """

  def penalty(critic, key, real, fake, train, *condition, **told):
    del key, fake
    judge = detached(critic, train, *condition, **told)
    pay = lambda: gamma / 2 * every * _squared_norm(jax.grad(lambda x: judge(x).sum())(real))
    if every == 1:
      losses = pay()
    else:
      losses = jax.lax.cond(_count(critic, "r1") % every == 0, pay, lambda: jnp.zeros(len(real)))
    return losses, {"r1": losses}

  return penalised(game, penalty)


def between(key, real, fake):
  """A uniformly drawn point of the line from each real image to its fake."""
  mix = random.uniform(key, len(real), (1,) * (real.ndim - 1))
  return mix * real + (1 - mix) * fake


def near_data(spread: float) -> Callable:
  """x + spread std U with U uniform in [0, 1) for every pixel, and std that of all numbers in the batch."""

  def where(key, real, fake):
    del fake
    variance = global_mean(jnp.square(real - global_mean(real.mean())).mean())
    return real + spread * jnp.sqrt(variance) * random.uniform(key, len(real), real.shape[1:])

  return where


def slope(critic, x, train: bool, *condition, **told):
  """|dD / dx| at x, [B]; the norm over the whole image."""
  judge = detached(critic, train, *condition, **told)
  return jnp.sqrt(_squared_norm(jax.grad(lambda x: judge(x).sum())(x)) + 1e-12)


def slope_between(critic, key, real, fake, train: bool, *condition, **told):
  """|dD / dx| at a uniformly drawn point of the line from each real image to its fake, [B]."""
  return slope(critic, between(key, real, fake), train, *condition, **told)


def detached(critic: nn.Module, train: bool, *condition, **told) -> Callable:
  """The critic as a function of x alone, which JAX may differentiate: what it would write to its collections is dropped.

  Flax lets no layer that writes (spectral normalisation) or draws (dropout) into a transformation of JAX's within a module.
  """
  module, variables = critic.unbind()
  rngs = {"dropout": critic.make_rng("dropout")} if critic.has_rng("dropout") else {}
  apply = functools.partial(module.apply, rngs=rngs, mutable=DenyList(("params",)))
  return lambda x: apply(variables, x, train, *condition, **told)[0]


def _squared_norm(gradient):
  return jnp.square(gradient).reshape(len(gradient), -1).sum(-1)


def _count(critic: nn.Module, name: str):
  """How often this was asked in training before, int32 []."""
  before = critic.get_variable("counters", name, jnp.zeros((), jnp.int32))
  critic.put_variable("counters", name, before if critic.is_initializing() else before + 1)
  return before
