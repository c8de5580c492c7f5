"""Markov-chain sampling: from a law that is known only up to a constant, by steps that leave it as it is.

    kernel = hmc(log_prob, step_size=0.1, num_steps=10)
    draws = run(kernel, key, positions, num_steps=1000)      # many chains at once: positions [C, ...]
    draws.positions                                          # [1000, C, ...]
    draws.summary().effective_samples                        # how many independent draws they are worth

A step from x to x' is right if x' follows the law whenever x does.  Metropolis-Hastings proposes and at times refuses; Gibbs
draws one variable given all others; Langevin and Hamiltonian steps follow the slope of the log density.  Each is a `Kernel` of
two pure functions.  What is paid is dependence: a thousand steps are worth fewer draws, and `summary` says how many.
"""

from gm_jax.markov_chain.adaptation import warm_up
from gm_jax.markov_chain.chain import Info, Kernel, Run, Summary, each_chain, run
from gm_jax.markov_chain.diagnostics import effective_sample_size, split_r_hat
from gm_jax.markov_chain.gibbs import block_gibbs, conditional_of, gibbs, in_order, in_random_order, mixture_gibbs
from gm_jax.markov_chain.gradient import hmc, leapfrog, mala, unadjusted_langevin
from gm_jax.markov_chain.metropolis import metropolis_hastings, random_walk

__all__ = [
  "Info",
  "Kernel",
  "Run",
  "Summary",
  "block_gibbs",
  "conditional_of",
  "each_chain",
  "effective_sample_size",
  "gibbs",
  "hmc",
  "in_order",
  "in_random_order",
  "leapfrog",
  "mala",
  "metropolis_hastings",
  "mixture_gibbs",
  "random_walk",
  "run",
  "split_r_hat",
  "unadjusted_langevin",
  "warm_up",
]
