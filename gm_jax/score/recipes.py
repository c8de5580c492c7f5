"""Published systems, as values of one type: what is asked of the network, at which levels, and what errors cost."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gm_jax.score import levels, noise, parameterizations, weights


class Recipe(NamedTuple):
  """How a denoiser is trained.

  Attributes:
    parameterization: what the network is asked for.
    levels: the distribution of log SNR that training visits.
    weight: log SNR -> what a squared error of the image costs.
  """

  parameterization: parameterizations.Parameterization
  levels: levels.Levels
  weight: Callable


def ddpm(schedule: noise.Schedule | None = None) -> Recipe:
  """Ho, Jain and Abbeel 2020, Algorithm 1: the noise, at even times of a schedule (theirs if None), each error alike."""
  schedule = schedule or noise.discrete(noise.linear_betas())
  return Recipe(parameterizations.noise(), levels.evenly(schedule), weights.simple)


def velocity(schedule: noise.Schedule | None = None, gamma: float = 5.0) -> Recipe:
  """Salimans and Ho 2022: v = alpha eps - sigma x_0, on a cosine schedule if None; weighed by min(SNR, gamma) + 1 as v is."""
  schedule = schedule or noise.cosine()
  return Recipe(parameterizations.velocity(), levels.evenly(schedule), lambda log_snr: weights.min_snr(gamma)(log_snr) + 1)


def edm(data_std: float = 0.5, mean: float = -1.2, std: float = 1.2) -> Recipe:
  """Karras et al. 2022, table 1: inputs and targets of unit variance, lognormal levels, every level's loss 1 at the start."""
  return Recipe(parameterizations.karras(data_std), levels.lognormal(mean, std), weights.karras(data_std))


def flow_matching(schedule: noise.Schedule | None = None) -> Recipe:
  """Lipman et al. 2023, Liu et al. 2023: the velocity eps - x_0 on straight lines, at even times, each error alike."""
  schedule = schedule or noise.straight()
  return Recipe(parameterizations.flow(), levels.evenly(schedule), weights.flow)


def ncsn(largest: float = 10.0, least: float = 0.01, num_levels: int = 10) -> Recipe:
  """Song and Ermon 2019: the score at a few noise levels sigma / alpha in geometric steps, weighed by their squares."""
  table = np.geomspace(largest, least, num_levels)
  return Recipe(parameterizations.score(), levels.only(table), weights.simple)


def variational(schedule: noise.Schedule | None = None) -> Recipe:
  """Kingma et al. 2021 with a fixed schedule: the noise, and the errors as the variational bound counts them."""
  chosen = levels.evenly(schedule or noise.uniform())
  return Recipe(parameterizations.noise(), chosen, weights.bound(chosen))
