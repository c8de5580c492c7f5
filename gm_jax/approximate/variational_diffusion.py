"""Variational diffusion: a VAE of infinitely many levels of noise, trained by its bound, which also learns how noise comes in.

Kingma, Salimans, Poole and Ho 2021, "Variational diffusion models"; https://arxiv.org/abs/2107.00630

What is learnt is a denoiser and a clock, log SNR as a falling function of t.  Where the clock starts and ends is for the bound
to decide (score/likelihood.py): more noise at the end costs less to send, less of it at the start tells more of the image.  How
the clock runs in between does not change the bound at all (section 5.1), but it does change how noisy an estimate from one
random t is: so the shape of the clock descends the variance of that estimate (section 5.3), and all else descends the bound.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.errors import UserError
from gm_jax.score import decoders, likelihood, noise
from gm_jax.score.diffusion import Denoiser

# Networks.


class FourierFeatures(nn.Module):
  """A network that also sees sin(2^n pi x) and cos(2^n pi x), a pixel's last bits, for which the bound pays (section 3.4)."""

  network: nn.Module  # as a Denoiser's; its outputs have the image's channels (`out_channels` of a UNet)
  exponents: Sequence[int] = (7, 8)

  def __call__(self, x, time, label=None, train: bool = False):
    angles = [2.0**n * math.pi * x for n in self.exponents]
    features = [function(angle) for angle in angles for function in (jnp.sin, jnp.cos)]
    output = self.network(jnp.concatenate([x, *features], -1), time, label, train)
    if output.shape != x.shape:
      raise UserError(f"behind Fourier features a network returns the image's channels, {x.shape[-1]}, not {output.shape[-1]}")
    return output


class Clock(nn.Module):
  """t in [0, 1] -> log SNR: a falling network of one hidden layer, tied to its ends (appendix H).

  Attributes:
    highest, lowest: log SNR at t = 0 and t = 1, where learning starts if the ends are learnt.
    learn_ends: whether they are; if not, they are pinned.
    units: of the hidden layer, each a smooth step; at first they stand in a row and the clock is all but even.
  """

  highest: float = 13.3
  lowest: float = -5.0
  learn_ends: bool = True
  units: int = 64

  def setup(self):
    constant = nn.initializers.constant
    start = jnp.array([self.highest, self.lowest])
    self.ends = self.param("ends", lambda key: start) if self.learn_ends else start
    self.direct = self.param("direct", constant(0.0), ())
    self.weights = self.param("weights", constant(0.0), (self.units,))
    self.steepness = self.param("steepness", constant(8.0), (self.units,))
    self.centres = self.param("centres", lambda key: (jnp.arange(self.units, dtype=jnp.float32) + 0.5) / self.units)

  def shape(self, t):
    """How much of the way from highest to lowest is gone at t [B], from 0 to 1, and its slope, above 0."""
    way, slope = self._rise(t)
    whole, _ = self._rise(jnp.ones_like(t))
    return way / whole, slope / whole

  def log_snr(self, t):
    t = jnp.asarray(t, jnp.float32)
    return self.between(self.shape(t.reshape(-1))[0]).reshape(t.shape)

  def between(self, share):
    highest, lowest = self.ends
    return highest + (lowest - highest) * share

  def _rise(self, t):
    row = lambda values: values[None]  # [1, units]
    steepness, weights = row(nn.softplus(self.steepness)), row(nn.softplus(self.weights))
    distance = t[:, None] - row(self.centres)  # [B, units]
    step = nn.sigmoid(steepness * distance)
    # From 0 on, step by step, so that the start is exactly 0 and not a difference of sums.
    gone = weights * (step - nn.sigmoid(-steepness * row(self.centres)))
    slope = weights * steepness * nn.sigmoid(-steepness * distance) * step
    direct = nn.softplus(self.direct)
    return direct * t + gone.mean(1), direct + slope.mean(1)


class VariationalDiffusion(nn.Module):
  """What is learnt, and what the last of the noise says of the image: of uint8 if None; points want `decoders.density()`."""

  denoiser: Denoiser
  clock: Clock
  decoder: decoders.Decoder | None = None

  def told(self, label, train: bool) -> Callable:
    """The denoiser that knows the labels."""
    return lambda x, log_snr: self.denoiser(x, log_snr, label, train)


# Two gradients in one way back.  Of one example's loss l, everything learns by the gradient of l, but the shape of the clock by
# that of l^2, which is 2 l times the first.  How much l is, is only known at the end of the way there, which is where the way
# back begins: so a mark that is nothing goes along from the clock to the loss, and its "gradient" brings the factor back.


@jax.custom_vjp
def marked(values):
  """Numbers of each example, a tuple of [B], and their mark [B]."""
  return values, jnp.zeros_like(values[0])


@jax.custom_vjp
def squared_for_marked(loss, mark):
  """The loss [B] itself; but what is behind the mark has the gradient of its square."""
  del mark
  return loss


marked.defvjp(lambda values: (marked(values), None), lambda _, g: (tuple(g[1] * each for each in g[0]),))
squared_for_marked.defvjp(lambda loss, mark: (loss, loss), lambda loss, g: (g, 2 * loss))


def negative_elbo(num_levels: int = 8):
  """The objective: one level for each image in training, `num_levels` where it is evaluated."""

  def objective(model: VariationalDiffusion, key, batch, train: bool):
    pixels, denoise = batch["image"], model.told(batch.get("label"), train)
    if train:
      level_key, noise_key, ends_key = jax.random.split(key, 3)
      rate = one_level(model, denoise, images.to_symmetric(pixels), level_key, jax.random.fold_in(noise_key, 0))
      parts = likelihood.with_ends(denoise, model.clock.log_snr, pixels, ends_key, rate, model.decoder)
    else:
      how = dict(num_levels=num_levels, decoder=model.decoder)
      parts = likelihood.bound(denoise, model.clock.log_snr, pixels, key, **how)
    return parts.pop("nll_bound"), parts

  return objective


def one_level(model: VariationalDiffusion, denoise: Callable, x_0, level_key, noise_key):
  """The nats of all levels, estimated from one, [B]: `likelihood.bound`'s diffusion term, with both gradients."""
  t = random.evenly(level_key, len(x_0))
  (share, slope), mark = marked(model.clock.shape(t))
  eps = random.normal(noise_key, len(x_0), x_0.shape[1:])
  highest, lowest = model.clock.ends
  rate = (highest - lowest) / 2 * slope * likelihood.noise_error(denoise, x_0, model.clock.between(share), eps)
  num_dims = x_0[0].size  # the square of the nats per dimension, so that neither gradient drowns the other
  return num_dims * squared_for_marked(rate / num_dims, mark)


def ancestral_sample(denoise: Callable, log_snrs, key, num: int, shape):
  """From noise along log SNR [T + 1], rising, by draws of q(x_s | x_t, x_0) with x_0 guessed (section 3.3): x [num, *shape]."""
  start_key, steps_key = jax.random.split(key)

  def step(x, row):
    index, t, s = row
    z = random.normal(jax.random.fold_in(steps_key, index), num, shape)
    removed = -jnp.expm1(t - s)  # of the noise's variance, in units of x_0
    mean = noise.alpha(s) * ((1 - removed) / noise.alpha(t) * x + removed * denoise(x, t))
    return mean + noise.sigma(s) * jnp.sqrt(removed) * z, None

  rows = (jnp.arange(len(log_snrs) - 1), log_snrs[:-1], log_snrs[1:])
  return jax.lax.scan(step, random.normal(start_key, num, shape), rows)[0]


def variational_diffusion(
  module: VariationalDiffusion,
  optimizer: optax.GradientTransformation,
  *,
  image_shape: tuple[int, ...],
  num_steps: int = 250,
  num_levels: int = 8,
  write: Callable = images.from_symmetric,
  decay: float = 0.999,
) -> GenerativeModel:
  """A variational diffusion model; evaluate returns `nll_bound` and its parts `distortion`, `rate_diffusion` and `rate_prior`.

  Args:
    module: denoiser, clock and decoder.  Labels are read if the denoiser has classes, and are the condition of `sample`.
    optimizer: one, for the denoiser and the clock.
    image_shape: (H, W, C).
    num_steps: of a sample, even in t.
    num_levels: of each image that is evaluated.
    write: from x_0 to images; `lambda x: x` for points.
    decay: of the average of the parameters.
  """

  def sample(model: VariationalDiffusion, key, num, condition):
    denoise = model.told(condition, train=False)
    log_snrs = model.clock.log_snr(jnp.linspace(1, 0, num_steps + 1))
    x = ancestral_sample(denoise, log_snrs, key, num, image_shape)
    decoder = model.decoder or decoders.levels()
    return write(decoder.likeliest(denoise, x, log_snrs[-1]))

  return from_objective(module, negative_elbo(num_levels), sample, optimizer, reports="nll_bound", decay=decay)


def learnt(module: VariationalDiffusion, state, label=None) -> tuple[Callable, Callable]:
  """The denoiser `(x, log_snr) -> x_0`, told the labels, and the clock `t -> log SNR`, of a state's averaged parameters."""
  bound = lambda function: nn.apply(function, module)
  denoise = lambda x, log_snr: bound(lambda m: m.told(label, False)(x, log_snr))(state.average.variables)
  return denoise, lambda t: bound(lambda m: m.clock.log_snr(t))(state.average.variables)


def measure(module: VariationalDiffusion, **how) -> Callable:
  """Both likelihoods, `(key, state, batch) -> {name: [B]}`, between the ends that the clock has learnt; `how` are the options
  of `likelihood.scores`."""

  def evaluate(key, state, batch):
    denoise, clock = learnt(module, state, batch.get("label"))
    return likelihood.scores(denoise, clock, batch["image"], key, decoder=module.decoder, **how)

  return evaluate
