"""How many evaluations does a sample need?  Solvers on one denoiser, held against where they all converge to."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from gm_jax.score import multistep, solvers

# All follow the same flow, so that from the same noise they should end at the same image.
DETERMINISTIC = {
  "Euler (DDIM)": solvers.DDIM(),
  "Heun": solvers.Heun(),
  "DPM++ 2M": multistep.DPMpp(2),
  "DPM++ 3M": multistep.DPMpp(3),
  "UniPC 2": multistep.UniPC(2),
  "UniPC 3": multistep.UniPC(3),
  "iPNDM 4": multistep.IPNDM(4),
}
REFERENCE = multistep.DPMpp(3)


class Distance(NamedTuple):
  """Between samples and what each should have been, where a sample's own distance is the root mean square over its numbers.

  Attributes:
    rms: root mean square over samples; where data has modes, the few that end at another one decide it.
    median: of a typical sample.
  """

  rms: float
  median: float


def distances(
  denoise: Callable, grid: Callable, x, budgets: list[int], *, ways: dict | None = None, reference_steps: int = 400
) -> dict[str, list]:
  """How far each solver's results are from the converged ones, from the same noise.

  Args:
    denoise: `(x, log_snr) -> x_0`, guidance and all.
    grid: `num_steps -> log SNR [num_steps + 1]`.
    x: the noise, [B, ...].
    budgets: numbers of evaluations; a solver takes as many steps as they allow it.
    ways: `{name: solver}`; DETERMINISTIC if None.
    reference_steps: of DPM++ 3M, for the converged result.

  Returns:
    `{name: [Distance for each budget]}`, None where a budget does not pay for a step.
  """
  follow = lambda method: np.asarray(jax.jit(lambda x: solvers.follow(denoise, method, x, None))(x), np.float64)
  truth = follow(REFERENCE(grid(reference_steps)))
  found = {}
  for name, solver in (ways or DETERMINISTIC).items():
    found[name] = []
    for budget in budgets:
      method = within(solver, grid, budget)
      if method is None:
        found[name].append(None)
        continue
      each = np.sqrt(np.square(follow(method) - truth).mean(tuple(range(1, truth.ndim))))
      found[name].append(Distance(float(np.sqrt(np.square(each).mean())), float(np.median(each))))
  return found


def within(solver: Callable, grid: Callable, budget: int) -> solvers.Method | None:
  """The solver on the longest grid that it evaluates at most `budget` times; None if there is none."""
  for num_steps in range(budget, 0, -1):
    method = solver(grid(num_steps))
    if method.num_evaluations <= budget:
      return method
  return None
