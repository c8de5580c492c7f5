"""How many independent draws are these worth, and do the chains agree?  Gelman et al. 2013, chapter 11; Vehtari et al. 2021."""

import jax.numpy as jnp


def effective_sample_size(draws):
  """The number of independent draws whose mean would vary as little: draws [S, C, ...] -> [...].

  S C / (1 + 2 sum of autocorrelations), the sum cut where Geyer's initial monotone sequence ends (Geyer 1992, section 3.3); the
  autocorrelations are those of all chains together, so that chains which disagree are worth little (Stan's estimate).  It may
  exceed S C, by a factor of log10(S C) at most, for draws that alternate about their mean.  NaN for draws that never change, or
  that are not numbers themselves.
  """
  length, num_chains = draws.shape[:2]
  covariance = _autocovariance(draws).mean(1)  # [S, ...]
  within = covariance[:1] * length / (length - 1)
  total = _total_variance(draws, within[0])[None]
  correlation = 1 - (within - covariance) / total
  # Sums of neighbours, at lags 2 k and 2 k + 1, are positive and fall for any reversible chain: what does not is noise.
  pairs = correlation[: length // 2 * 2].reshape(length // 2, 2, *draws.shape[2:]).sum(1)
  pairs = pairs.at[0].set(1 + correlation[1])
  still = jnp.cumprod(pairs > 0, axis=0)
  monotone = jnp.minimum.accumulate(jnp.where(still > 0, pairs, 0.0), axis=0)
  time = 2 * monotone.sum(0) - 1
  num = length * num_chains
  known = (draws != draws[:1, :1]).any((0, 1)) & (total[0] > 0)
  return jnp.where(known, num / jnp.maximum(time, 1 / jnp.log10(jnp.float32(num))), jnp.nan)


def split_r_hat(draws):
  """The deviation of all draws over that within half-chains, [S, C, ...] -> [...]: 1 where the chains agree and stand still.

  Above 1.01 they have not yet forgotten where they started (Vehtari et al. 2021).
  """
  half = len(draws) // 2
  halves = jnp.concatenate([draws[:half], draws[-half:]], axis=1)  # [S / 2, 2 C, ...]
  within = halves.var(0, ddof=1).mean(0)
  return jnp.sqrt(_total_variance(halves, within) / within)


def _total_variance(draws, within):
  """The variance of the law, too high as long as the chains disagree: [S, C, ...], [...] -> [...]."""
  length, num_chains = draws.shape[:2]
  between = draws.mean(0).var(0, ddof=1) if num_chains > 1 else 0.0
  return within * (length - 1) / length + between


def _autocovariance(draws):
  """At every lag, by the Fourier transform: [S, C, ...] -> [S, C, ...].  Divided by S at any lag, so that noise stays small."""
  length = len(draws)
  spectrum = jnp.fft.rfft(draws - draws.mean(0, keepdims=True), n=2 * length, axis=0)  # zeros behind: no lag wraps round
  return jnp.fft.irfft(jnp.abs(spectrum) ** 2, n=2 * length, axis=0)[:length] / length
