"""GANs of MNIST that differ in the game alone: minimax, non-saturating, least squares, hinge, Wasserstein, DRAGAN and BEGAN.

Family: implicit
Command: gm-jax train gan_mnist --game hinge --data-dir DIR
Hardware: 2 CPU cores, shared with other work
Minutes: 3
Expected: Frechet distance 67 of 5,000 samples from the test split in the judge's features (of training images: 1.5); seed 0

Two players for all of them, those of Lucic et al. 2018 ("Are GANs Created Equal?") at a quarter of their width.  A game brings
what it is recommended with: how the critic is normalised, its optimiser, and how often each plays.  The Frechet distance of the
averaged generator's samples from the test split, in the features of the judge (judge.py), is in metrics.jsonl as "frechet"; the
judge is trained first if runs/judge is not there.  `python -m experiments.compare_games` makes a table of all games.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import optax

from experiments import distances
from experiments.base import Run, mnist
from gm_jax.core import GenerativeModel
from gm_jax.implicit import games, gan, remedies
from gm_jax.implicit.began import began
from gm_jax.networks import infogan
from gm_jax.networks.began import AutoencodingCritic
from gm_jax.networks.convnet import ConvDecoder, ConvEncoder
from gm_jax.networks.spectral import SpectralNorm

SHAPE = (28, 28, 1)
Name = Literal["minimax", "non_saturating", "least_squares", "hinge", "wgan", "wgan_gp", "dragan", "began"]


@dataclasses.dataclass(frozen=True)
class Config(Run):
  game: Name = "non_saturating"  # what the players minimise, with what is recommended for it
  steps: int = 3000  # of the critic
  batch_size: int = 64
  base: int = 16  # channels at half resolution; twice as many at a quarter, and 16 times as many units
  num_latents: int = 64
  decay: float = 0.995  # of the generator's average
  frechet_every: int = 300  # steps between Frechet distances; 0: none, and no judge
  frechet_samples: int = 5000  # behind each
  judge: str = "runs/judge"  # the run that keeps the classifier
  save_every: int = 1000
  sample_every: int = 1000

  LEAST = Run.LEAST | {"base": 1, "num_latents": 1, "frechet_samples": 2}


# How the critic is kept within bounds.


def batch_normed(base: int) -> nn.Module:
  return infogan.Discriminator(base)


def plain(base: int) -> nn.Module:
  """For penalties on slopes, which are defined at each example alone, and for clipped weights."""
  return infogan.Discriminator(base, norm=None)


def unit_weights(base: int) -> nn.Module:
  return SpectralNorm(plain(base))


def autoencoder(base: int) -> nn.Module:
  """The same layers there and back, with a code of 64 numbers between them."""
  return AutoencodingCritic(ConvEncoder((base, 2 * base), 64), ConvDecoder(SHAPE, (2 * base, base), 16 * base))


# What a game is played with.


class Recipe(NamedTuple):
  """The recommended way to play a game.

  Attributes:
    game: () -> Game.
    critic: width -> module.
    optimizer: learning rate -> transformation, of both players.
    rates: the critic's and the generator's learning rate.
    n_critic: steps of the critic to one of the generator.
  """

  game: Callable[[], games.Game]
  critic: Callable[[int], nn.Module]
  optimizer: Callable[..., optax.GradientTransformation]
  rates: tuple[float, float]
  n_critic: int = 1


def adam(b1: float, b2: float = 0.999) -> Callable:
  return functools.partial(optax.adam, b1=b1, b2=b2)


# Behind clipped weights gradients may be so small that optax's epsilon under the root would stop all.
_rmsprop = functools.partial(optax.rmsprop, decay=0.99, eps=1e-8, eps_in_sqrt=False, bias_correction=True)

# From the papers, at rates for a run of thousands of steps and not of a hundred thousand.
RECIPES = {
  # Under BatchNorm the critic is soon sure of all fakes: the rates at which these players were published (Chen et al. 2016).
  "minimax": Recipe(games.minimax, batch_normed, adam(0.5), (2e-4, 1e-3)),
  "non_saturating": Recipe(games.non_saturating, batch_normed, adam(0.5), (2e-4, 1e-3)),
  "least_squares": Recipe(games.least_squares, batch_normed, adam(0.5), (2e-4, 1e-3)),
  # A critic of bounded slope may be fast: three times the generator's rate in place of five turns (Heusel et al. 2017).
  "hinge": Recipe(games.hinge, unit_weights, adam(0.0, 0.9), (9e-4, 3e-4)),
  "wgan_gp": Recipe(games.wgan_gp, plain, adam(0.0, 0.9), (9e-4, 3e-4)),
  "dragan": Recipe(games.dragan, plain, adam(0.5, 0.9), (5e-4, 5e-4)),
  # Fewer layers than in the paper and none normalised, so weights may be larger.
  "wgan": Recipe(functools.partial(games.wgan, 0.05), plain, _rmsprop, (5e-4, 5e-4), n_critic=2),
  # The controller has few steps to find its balance.  Asked for half of the digits' error, as in the paper, the generator makes
  # ones, which have little ink to get wrong.
  "began": Recipe(functools.partial(began, 0.95, 0.01), autoencoder, adam(0.5), (5e-4, 5e-4)),
}


def falling(rate: float, steps: int) -> Callable:
  """The rate for the first half of a player's steps, then in a line to zero: whatever goes round in circles comes to rest."""
  return optax.linear_schedule(rate, 0.0, max(steps - steps // 2, 1), steps // 2)


def model(config: Config) -> GenerativeModel:
  recipe = RECIPES[config.game]
  critic_rate, generator_rate = recipe.rates
  return gan.gan(
    infogan.Generator(SHAPE, config.base),
    recipe.critic(config.base),
    recipe.game(),
    recipe.optimizer(falling(generator_rate, config.steps // recipe.n_critic)),
    recipe.optimizer(falling(critic_rate, config.steps)),
    num_latents=config.num_latents,
    n_critic=recipe.n_critic,
    decay=config.decay,
    remedies=[remedies.recomputed_statistics()],
  )


def data(config: Config):
  return mnist(config)


def hooks(config: Config) -> list:
  if not config.frechet_every:
    return []
  judge = distances.judge_of_mnist(config.data_dir, config.judge)
  every, num = config.frechet_every, config.frechet_samples
  return [distances.FrechetDistance(every, model(config), judge, seed=config.seed, num=num)]
