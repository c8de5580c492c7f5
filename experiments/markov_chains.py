"""What a thousand steps of each Markov chain are worth, on a Gaussian of many widths.

    python -m experiments.markov_chains [--dims 20] [--chains 100] [--steps 2000] [--seed 0]

Independent normals with deviations from 0.1 to 1.  Step sizes are found in 500 steps of warm-up; unadjusted Langevin takes
MALA's.  Prints for each kernel the step size, the share accepted, the effective sample size of x^2 per 1,000 steps of a chain,
its R-hat, and by how many of its own standard errors the mean of x^2 is off, each for the worst coordinate.  Of twenty
coordinates the worst is some two standard errors off if the kernel is right, and many if it is biased.  As measured (20 s on
2 CPU cores, shared with other work):

    kernel                   step  accepted    worth   R-hat  errors
    random walk             0.122     22.4%      1.2  1.3067     1.8
    Langevin, unadjusted    0.154    100.0%     12.2  1.0380   180.4
    Langevin                0.154     56.9%      6.7  1.0749     2.0
    Hamiltonian, 5 steps    0.124     80.3%     68.0  1.0072     1.8
    Hamiltonian, 15 steps   0.127     79.5%    219.0  1.0021     1.7
"""

import argparse


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, default in {"dims": 20, "chains": 100, "steps": 2000, "seed": 0}.items():
    parser.add_argument(f"--{name}", type=int, default=default)
  args = parser.parse_args()

  import jax
  import jax.numpy as jnp

  from gm_jax import markov_chain as mc

  widths = jnp.geomspace(0.1, 1.0, args.dims)
  score = lambda x: -x / widths[None] ** 2
  log_prob = lambda x: -0.5 * ((x / widths[None]) ** 2).sum(1)
  start_key, warm_key, run_key = jax.random.split(jax.random.key(args.seed), 3)
  start = widths[None] * jax.random.normal(start_key, (args.chains, args.dims))

  def sampled(kernel, positions):
    draws = mc.run(kernel, run_key, positions, args.steps)
    return draws._replace(positions=draws.positions**2).summary()

  def show(name, step_size, summary):
    worth = 1000 * summary.effective_samples.min() / (args.steps * args.chains)
    error = jnp.abs((summary.mean - widths**2) / summary.stderr).max()
    print(f"{name:22} {step_size:6.3f} {summary.acceptance:9.1%} {worth:8.1f} {summary.r_hat.max():7.4f} {error:7.1f}")

  print(f"{'kernel':22} {'step':>6} {'accepted':>9} {'worth':>8} {'R-hat':>7} {'errors':>7}")
  for name, make, target in (
    ("random walk", lambda step: mc.random_walk(log_prob, step), 0.23),
    ("Langevin, unadjusted", lambda step: mc.mala(log_prob, step), 0.57),
    ("Langevin", lambda step: mc.mala(log_prob, step), 0.57),
    ("Hamiltonian, 5 steps", lambda step: mc.hmc(log_prob, step, 5), 0.8),
    ("Hamiltonian, 15 steps", lambda step: mc.hmc(log_prob, step, 15), 0.8),
  ):
    warm = jax.jit(lambda start, make=make, target=target: mc.warm_up(make, warm_key, start, 0.1, 500, target))(start)
    if name == "Langevin, unadjusted":
      make = lambda step: mc.unadjusted_langevin(score, step)
    show(name, warm.step_size, jax.jit(lambda warm, make=make: sampled(make(warm.step_size), warm.positions))(warm))


if __name__ == "__main__":
  main()
