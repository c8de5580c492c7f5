"""BEGAN on MNIST: the critic is an autoencoder that learns to reconstruct digits and, k times as much, not fakes.

Family: implicit
Command: gm-jax train began_mnist --data-dir DIR
Hardware: 2 CPU cores, shared with another training
Minutes: 11
Expected: a classifier is 93 % sure of 1,000 samples; 46 % are ones, 0, 2, 3, 5 at most 1 % each; k comes to 0.26; seed 0

`gm-jax evaluate` reports L(x) of test images as "error" and L(g) of samples as "fake_error", means over pixels in [-1, 1], and
the paper's measure of "convergence", L(x) + |gamma L(x) - L(g)|: by the means of each batch, so it is that of the whole split
or a little more.  The picture "reconstructions" has test digits above what the critic makes of them, and samples likewise.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.base import Run, mnist
from gm_jax import images, random
from gm_jax.cli import arrays
from gm_jax.core import GenerativeModel, global_mean
from gm_jax.implicit import began, gan
from gm_jax.networks.began import AutoencodingCritic, Decoder, Encoder

COLUMNS = 16  # of a picture


@dataclasses.dataclass(frozen=True)
class Config(Run):
  steps: int = 4500
  batch_size: int = 16
  gamma: float = 0.95  # L(g) / L(x) at the equilibrium; lower for digits of less ink, which are ones
  rate: float = 0.01  # of the controller of k; the paper's 0.001 would take all of so few steps to bring k to where it rests
  learning_rate: float = 4e-4  # of the critic's Adam, at first; the paper's 1e-4 is for a hundred times as many steps
  generator_learning_rate: float = 2e-3  # if it is the critic's, the generator stays with an even grey and k at 0
  halvings: int = 3  # of both learning rates, at equal distances
  momentum: float = 0.5  # Adam's b1
  base: int = 16  # channels; the critic's encoder has twice and three times as many at 14 x 14 and 7 x 7
  num_latents: int = 32  # as many as the critic's codes have numbers
  decay: float = 0.999  # of the generator's average
  sample_every: int = 1500
  save_every: int = 1500

  LEAST = Run.LEAST | {"base": 1, "num_latents": 1}


def critic(config: Config) -> AutoencodingCritic:
  return AutoencodingCritic(Encoder(config.num_latents, config.base), Decoder((28, 28, 1), config.base))


def model(config: Config) -> GenerativeModel:
  spans = max(1, config.steps // (config.halvings + 1))
  falling = lambda rate: optax.exponential_decay(rate, spans, 0.5, staircase=True)
  rates = config.generator_learning_rate, config.learning_rate
  optimizers = (optax.adam(falling(rate), b1=config.momentum) for rate in rates)
  players = Decoder((28, 28, 1), config.base), critic(config), began.began(config.gamma, config.rate)
  return gan.gan(*players, *optimizers, num_latents=config.num_latents, decay=config.decay)


def data(config: Config):
  return mnist(config)


def measure(config: Config):
  """Beside what the critic gives test images, how it takes samples: as many, made by the average, in whole levels of grey."""
  player = model(config)

  def scores(key, state, batch):
    key, sample_key, fake_key = jax.random.split(key, 3)
    found = player.evaluate(key, state, batch)
    error = -found["critic"]
    fakes = player.sample(sample_key, state, len(error))
    fake_error = -player.evaluate(fake_key, state, {"image": fakes})["critic"]
    balance = jnp.abs(global_mean(config.gamma * error.mean() - fake_error.mean()))
    return {**found, "error": error, "fake_error": fake_error, "convergence": error + balance}

  return scores


def protocol(config: Config) -> dict:
  return {"gamma": config.gamma, "batch_size": config.batch_size}


def pictures(config: Config, state) -> dict:
  test = np.asarray(arrays.read(arrays.first(data(config)["test"], COLUMNS), seed=0))
  fakes = jax.jit(model(config).sample, static_argnums=2)(random.stream(config.seed, random.SAMPLE), state, COLUMNS)

  def through(pixels):
    x = images.to_symmetric(pixels)
    return images.from_symmetric(critic(config).apply(state.critic.variables, x, False, method="reconstruct"))

  lines = [line for pixels in (test, fakes) for line in (pixels, jax.jit(through)(pixels))]
  return {"reconstructions": images.grid(np.concatenate(lines), columns=COLUMNS)}
