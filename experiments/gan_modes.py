"""Ten GANs of 2-D points at once, ten seeds in one program: which modes of a mixture do they find, and which do they lose?

The laws are the grid of 25 Gaussians of Lin et al. 2018 (PacGAN) at half its size, spacing 1 and deviation 0.025, and the ring
of 8 of Metz et al. 2017, radius 2 and deviation 0.02.  After training, and by `gm-jax evaluate`, each seed is scored by 2,500
samples of its own, as in PacGAN, with mean and standard deviation over seeds: "modes", those with a sample within 3 deviations;
"high_quality", the share of samples within 3 deviations of a mode (of the law's own: 98.9 %); "reverse_kl", that of the modes'
shares of these samples from uniform ones, in nats (of the law's own on the grid: 0.005); and "collapsed", whose mean is the
collapse rate, the share of seeds that do not cover all modes.

Family: implicit
Command: gm-jax train gan_modes --remedies instance_noise richer_latents r1
Hardware: 2 CPU cores, shared with other work
Minutes: 1.9
Expected: all 25 modes in each of ten seeds, 98.7 +- 0.9 % of high quality, reverse_kl 0.014 +- 0.005 nats

`gm-jax sample` draws from the first seed alone, since all seeds together would have the modes that each of them has lost; the
picture "seeds" shows every one.  `python -m experiments.gan_table` makes a table of games and remedies.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import base
from gm_jax import images, random
from gm_jax.core import GenerativeModel
from gm_jax.data import toys
from gm_jax.errors import UserError
from gm_jax.implicit import games, gan, latents, many, remedies
from gm_jax.metrics import modes
from gm_jax.networks.players import Critic, FlatCritic, FlatGenerator


class Law(NamedTuple):
  toy: toys.Toy
  centres: np.ndarray  # [K, 2]
  std: float


def grid(spacing: float = 1.0, std: float = 0.025) -> Law:
  ticks = spacing * np.arange(-2, 3)
  return Law(toys.grid(5, spacing, std), np.array([*itertools.product(ticks, ticks)]), std)


def ring(num: int = 8, radius: float = 2.0, std: float = 0.02) -> Law:
  angles = 2 * math.pi * np.arange(num) / num
  return Law(toys.ring(num, radius, std), radius * np.stack([np.cos(angles), np.sin(angles)], -1), std)


LAWS = {"grid": grid(), "ring": ring()}
REACH = 3.0  # of pictures
Remedy = Literal[
  "two_learning_rates",
  "unrolled",
  "packing_2",
  "packing_4",
  "minibatch_discrimination",
  "spectral_normalization",
  "historical_averaging",
  "instance_noise",
  "feature_matching",
  "r1",
  "richer_latents",
]


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  law: Literal["grid", "ring"] = "grid"
  game: Literal["minimax", "non_saturating", "least_squares", "hinge", "wgan", "wgan_gp", "dragan"] = "non_saturating"
  remedies: tuple[Remedy, ...] = ()  # applied in this order
  num_seeds: int = 10  # GANs that are trained side by side
  steps: int = 10_000  # of the critics
  batch_size: int = 640  # points a step, dealt out to the seeds: 64 for each
  num_points: int = 100_000  # of the training split; the test split has 5,000
  n_critic: int = 1  # steps of a critic to one of its generator
  width: int = 128  # units of each of the two hidden layers of either player
  octaves: int = 5  # waves that a critic sees of each coordinate
  num_latents: int = 2
  learning_rate: float = 2e-3  # of both players' Adam, falling to nothing along a cosine in the second half
  momentum: float = 0.5  # Adam's b1
  decay: float = 0.999  # of the generator's average
  gamma: float = 0.02  # R1's weight
  noise: float = 0.3  # deviation of instance noise, until it fades
  clip: float = 0.1  # WGAN's bound of the critic's parameters
  num_drawn: int = 2500  # samples of each seed behind its scores
  log_every: int = 500
  save_every: int = 5000
  strategy: base.Strategy = "ensemble"  # some of the seeds on each device
  sample_every: int = 0
  num_samples: int = 2500

  LEAST = base.Run.LEAST | dict.fromkeys(("num_seeds", "n_critic", "width", "num_latents", "num_drawn", "num_points"), 1)

  def __post_init__(self):
    super().__post_init__()
    packs = 2 ** self.remedies.count("packing_2") * 4 ** self.remedies.count("packing_4")
    if self.batch_size % (self.num_seeds * packs):
      dealt = f"dealt out to {self.num_seeds} seeds in packs of {packs}"
      raise UserError(f"--batch-size {self.batch_size} cannot be {dealt}; take a multiple of {self.num_seeds * packs}")


# The players.


class WaveCritic(Critic):
  """D of points x [B, 1, 1, C], seen as they are and as waves, sin 2^k x and cos 2^k x for k < `octaves`.

  Modes that are forty times narrower than the space between them are fine print to a network of plain coordinates, which learns
  what is coarse first.
  """

  hidden: tuple[int, ...]
  octaves: int

  @nn.compact
  def judge(self, x, train: bool):
    phases = x * 2.0 ** jnp.arange(self.octaves)[None, :, None, None]  # [B, octaves, 1, C]
    seen = jnp.concatenate([x, jnp.sin(phases), jnp.cos(phases)], 1)
    return FlatCritic(self.hidden).judge(seen, train)


def players(config: Config) -> tuple[nn.Module, nn.Module]:
  hidden = (config.width, config.width)
  return FlatGenerator(hidden, (1, 1, 2), output=lambda x: x), WaveCritic(hidden, config.octaves)


# How they play.

GAMES: dict[str, Callable[[Config], games.Game]] = {
  "minimax": lambda config: games.minimax(),
  "non_saturating": lambda config: games.non_saturating(),
  "least_squares": lambda config: games.least_squares(),
  "hinge": lambda config: games.hinge(),
  "wgan": lambda config: games.wgan(config.clip),
  "wgan_gp": lambda config: games.wgan_gp(),
  "dragan": lambda config: games.dragan(),
}


def r1(config: Config) -> remedies.Remedy:
  return lambda plan: plan._replace(game=games.r1(plan.game, config.gamma))


def fading_noise(config: Config) -> remedies.Remedy:
  """Noise for a third of the steps, under which neighbouring modes are one and samples find their way from this to that one; it
  is gone after 60 %, which leaves time for what is fine."""
  hold, gone = int(0.35 * config.steps), int(0.6 * config.steps)
  return remedies.instance_noise(optax.polynomial_schedule(config.noise, 0.0, 2, max(1, gone - hold), transition_begin=hold))


def richer_latents(config: Config) -> remedies.Remedy:
  """One of a hundred kinds beside the normal numbers: between two modes there need be no latents whose samples lie there."""
  kinds = latents.categorical(100)
  return remedies.latents(latents.beside(latents.normal(config.num_latents), lambda key: 5.0 * kinds(key)))


REMEDIES: dict[str, Callable[[Config], remedies.Remedy]] = {
  "two_learning_rates": lambda config: remedies.two_learning_rates(generator=0.25),
  "unrolled": lambda config: remedies.unrolled(5),
  "packing_2": lambda config: remedies.packing(2),
  "packing_4": lambda config: remedies.packing(4),
  "minibatch_discrimination": lambda config: remedies.minibatch_discrimination(kernels=16, dim=3),
  "spectral_normalization": lambda config: remedies.spectral_normalization(),
  "historical_averaging": lambda config: remedies.historical_averaging(1e-3),
  "feature_matching": lambda config: remedies.feature_matching(),
  "instance_noise": fading_noise,
  "richer_latents": richer_latents,
  "r1": r1,
}


def one(config: Config) -> GenerativeModel:
  """The GAN of one seed."""

  def optimizer(steps):
    half = steps // 2
    falling = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - half))
    falling = optax.join_schedules([optax.constant_schedule(config.learning_rate), falling], [half])
    # Where the critic is unrolled its Adam is differentiated, and a square root has no derivative at 0.
    return optax.adam(falling, b1=config.momentum, b2=0.99, eps_root=1e-8 if "unrolled" in config.remedies else 0.0)

  optimizers = optimizer(config.steps // config.n_critic), optimizer(config.steps)
  chosen = [REMEDIES[name](config) for name in config.remedies]
  options = dict(num_latents=config.num_latents, n_critic=config.n_critic, decay=config.decay, pixels=images.POINTS)
  return gan.gan(*players(config), GAMES[config.game](config), *optimizers, **options, remedies=chosen)


def model(config: Config) -> GenerativeModel:
  return many.as_one(one(config), config.num_seeds)


def data(config: Config):
  toy = LAWS[config.law].toy
  return {"train": toy.dataset(config.num_points, seed=0), "test": toy.dataset(5000, seed=0, split="test")}


# What is told of them.


def draw(config: Config, state, seed: int, num: int) -> np.ndarray:
  """Samples of every seed, [num_seeds, num, 1, 1, 2]; the first seed's are those of `gm-jax sample`."""
  together = many.many(one(config), config.num_seeds)
  return np.asarray(jax.jit(together.sample, static_argnums=2)(random.stream(seed, random.SAMPLE), state, num))


def over_models(config: Config, state, seed: int) -> dict[str, np.ndarray]:
  """Of each GAN: {"modes", "high_quality", "reverse_kl", "collapsed": [num_seeds]}, see `modes.over_runs`."""
  return _counted(config, draw(config, state, seed, config.num_drawn))


def of_data(config: Config) -> dict[str, np.ndarray]:
  """What as many points of the law itself would show, as `over_models`."""
  toy = LAWS[config.law].toy
  splits = [toy.dataset(config.num_drawn, seed=0, split=f"draw {index}") for index in range(config.num_seeds)]
  return _counted(config, [split.arrays["image"] for split in splits])


def _counted(config: Config, drawn) -> dict[str, np.ndarray]:
  law = LAWS[config.law]
  return modes.over_runs([modes.of_points(points, law.centres, law.std) for points in drawn])


def protocol(config: Config) -> dict:
  return {"seeds": config.num_seeds, "samples_of_each": config.num_drawn, "deviations": 3}


def pictures(config: Config, state) -> dict:
  """Samples of each seed, over points of the data."""
  from experiments import plots

  law = LAWS[config.law]
  columns = min(config.num_seeds, 5)
  made, axes = plots.figure(columns, -(-config.num_seeds // columns))
  real = data(config)["test"].arrays["image"].reshape(-1, 2)
  for panel in axes.flat[config.num_seeds :]:
    panel.set_axis_off()
  for index, points in enumerate(draw(config, state, config.seed, config.num_drawn)):
    found = modes.of_points(points, law.centres, law.std)
    panel = axes.flat[index]
    panel.scatter(*real.T, s=4, color="lightgrey")
    panel.scatter(*points.reshape(-1, 2).T, s=1, color="black")
    title = f"{found.covered} of {len(law.centres)} modes, {found.high_quality:.0%}"
    panel.set(title=title, xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
  return {"seeds": plots.to_array(made)}
