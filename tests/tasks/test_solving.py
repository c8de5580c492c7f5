"""Budgets are kept, and distances are those to where the exact flow of a normal law ends."""

import jax
import numpy as np
import pytest

from gm_jax.score import grids, multistep, noise, solvers
from gm_jax.tasks import solving

STD = 0.5
GRID = lambda num_steps: grids.karras(num_steps, 0.002, 80.0)


def denoise(x, log_snr):
  alpha, sigma = noise.alpha(log_snr), noise.sigma(log_snr)
  return alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.Heun(), multistep.UniPC(2)])
@pytest.mark.parametrize("budget", [1, 2, 7, 40])
def test_the_longest_grid_within_the_budget(solver, budget):
  method = solving.within(solver, GRID, budget)
  assert method.num_evaluations <= budget
  more = [solver(GRID(num_steps)).num_evaluations for num_steps in range(1, budget + 2)]
  assert method.num_evaluations == max(count for count in more if count <= budget)


def test_a_budget_that_pays_for_nothing():
  twice = lambda grid: solvers.Heun()(np.append(grid[:-1], 20.0))  # it never ends on a guess: two for each step
  assert solving.within(twice, GRID, 1) is None


def test_distances_are_to_the_end_of_the_flow():
  x = jax.random.normal(jax.random.key(0), (500, 2))
  ways = {"Euler": solvers.DDIM(), "Heun": solvers.Heun()}
  found = solving.distances(denoise, GRID, x, [10, 41], ways=ways)
  start = GRID(1)[0]
  end = STD / np.sqrt(noise.alpha(start) ** 2 * STD**2 + noise.sigma(start) ** 2)  # x / std(x) is conserved
  for name, solver in ways.items():
    for budget, distance in zip([10, 41], found[name]):
      method = solving.within(solver, GRID, budget)
      reached = np.asarray(solvers.follow(denoise, method, x, None), np.float64)
      apart = reached - end * np.asarray(x, np.float64)
      assert distance.rms == pytest.approx(np.sqrt(np.square(apart).mean()), rel=0.05, abs=2e-3)
      median = np.median(np.linalg.norm(apart, axis=1)) / np.sqrt(2)
      assert distance.median == pytest.approx(median, rel=0.05, abs=2e-3)
  assert list(found) == ["Euler", "Heun"]


def test_a_stray_sample_moves_the_root_mean_square_alone():
  x = jax.random.normal(jax.random.key(0), (101, 2))
  strays = lambda x, log_snr: denoise(x, log_snr) + 100.0 * (log_snr < 0) * (np.arange(101) == 7)[:, None]
  ways = {"Euler": solvers.DDIM()}
  even, odd = (solving.distances(told, GRID, x, [10], ways=ways)["Euler"][0] for told in (denoise, strays))
  assert odd.median == pytest.approx(even.median, rel=0.1)
  assert odd.rms > 2 * even.rms
