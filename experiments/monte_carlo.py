"""Does the error of a Monte Carlo estimate behave?  Its variance against the number of draws, and how often intervals hold.

    python -m experiments.monte_carlo [--repeats 2000] [--seed 0]

Estimates KL(N(0, 1) || N(1, 1.21)), which is known, from N draws, many times over, for N from 10 to 100,000.  Prints for each N
the variance of the estimates, N times it, the standard error that they report, and how many of their 95% intervals cover the
truth; then the slope of log variance against log N, -1 in theory.  As measured (20 s on 2 CPU cores, shared with other work):

          N   variance  N * variance    stderr  coverage
         10  7.424e-02        0.7424   0.26397    93.70%
        100  7.013e-03        0.7013   0.08342    94.80%
       1000  7.001e-04        0.7001   0.02643    95.40%
      10000  7.167e-05        0.7167   0.00835    94.95%
     100000  6.826e-06        0.6826   0.00264    95.30%
    slope -1.0064
"""

import argparse
from typing import NamedTuple

NUMS = (10, 100, 1_000, 10_000, 100_000)
MEAN, LOG_VAR = 1.0, 0.19062036  # of q, whose deviation is 1.1; p is the standard normal


class Row(NamedTuple):
  num: int  # draws in each estimate
  variance: float  # of the estimates
  stderr: float  # that they report, root mean square
  coverage: float  # of their 95% intervals


def measure(key, repeats, nums=NUMS) -> list[Row]:
  """One row per number of draws; `repeats` estimates for each, or as many as `repeats` says for each number."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from gm_jax import distributions, information

  parameters = jnp.full((1, 1), MEAN), jnp.full((1, 1), LOG_VAR)
  other_log_prob = lambda x: distributions.normal_log_prob(x, *parameters)
  zero = jnp.zeros((1, 1))
  truth = distributions.kl_normal(zero, zero, *parameters)[0]
  sample = lambda key, num: jax.random.normal(key, (num, 1))

  def row(key, num, repeats):
    one = lambda key: information.estimate_kl(distributions.standard_normal_log_prob, sample, other_log_prob, key, num)
    at_once = max(1, min(repeats, 400_000 // num))
    estimates = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=at_once))(jax.random.split(key, repeats))
    low, high = estimates.interval(0.95)
    value, stderr = (np.asarray(leaf, np.float64) for leaf in (estimates.value, estimates.stderr))
    return Row(num, value.var(ddof=1), np.sqrt((stderr**2).mean()), float(((low < truth) & (truth < high)).mean()))

  repeats = (repeats,) * len(nums) if isinstance(repeats, int) else repeats
  return [row(jax.random.fold_in(key, num), num, some) for num, some in zip(nums, repeats, strict=True)]


def slope(rows: list[Row]) -> float:
  """Of log variance against log N."""
  import numpy as np

  return float(np.polyfit(np.log([row.num for row in rows]), np.log([row.variance for row in rows]), 1)[0])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--repeats", type=int, default=2000)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  import jax

  rows = measure(jax.random.key(args.seed), args.repeats)
  print(f"{'N':>7} {'variance':>10} {'N * variance':>13} {'stderr':>9} {'coverage':>9}")
  for row in rows:
    print(f"{row.num:7d} {row.variance:10.3e} {row.num * row.variance:13.4f} {row.stderr:9.5f} {row.coverage:9.2%}")
  print(f"slope {slope(rows):.4f}")


if __name__ == "__main__":
  main()
