"""Variational diffusion on handwritten digits, 8 x 8: the network, the clock and its ends, all learnt by the bound.

Kingma, Salimans, Poole and Ho 2021 at a small size.  `gm-jax evaluate` reports the bound and its parts, and what the learnt
clock is for: "loss_variance", in nats squared, is how much the loss of an image at one random level varies, and
"loss_variance_even" how much it would at even steps of log SNR between the same ends.  The bound is the same for both.

Family: approximate
Command: gm-jax train vdm_digits
Hardware: 2 CPU cores, shared with other work
Minutes: 14
Expected: a bound of 2.22 +- 0.01 bits/dim on the 299 test images; loss_variance 4,400 against 14,300 at even steps; seed 0
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import base
from gm_jax.approximate import variational_diffusion as vdm
from gm_jax.errors import UserError
from gm_jax.networks.unet import UNet
from gm_jax.score import likelihood, parameterizations
from gm_jax.score.diffusion import Denoiser

SHAPE = (8, 8, 1)


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2000
  batch_size: int = 64
  channels: int = 64  # of the U-Net, which has one level, on patches of 2 x 2 pixels
  blocks: int = 2  # residual blocks of each way
  highest: float = 13.3  # log SNR where the clock starts, before it has learnt
  lowest: float = -5.0  # and where it ends
  learning_rate: float = 2e-3  # of Adam: it rises for 200 steps, then falls along a cosine
  decay: float = 0.995  # of the average of the parameters
  num_steps: int = 250  # of a sample
  num_levels: int = 32  # at which each image is evaluated

  LEAST = base.Run.LEAST | {"channels": 4, "blocks": 1, "highest": -30, "lowest": -30, "num_steps": 1, "num_levels": 1}

  def __post_init__(self):
    super().__post_init__()
    if not self.highest > self.lowest:
      raise UserError(f"--highest is {self.highest} and --lowest {self.lowest}; the clock falls from one to the other")


def module(config: Config) -> vdm.VariationalDiffusion:
  # Grey levels are an eighth apart, so that sin(2^4 pi x) tells where between two of them x is, as the last bit would.
  network = UNet((config.channels,), blocks=config.blocks, patch=2, attention=(0,), out_channels=SHAPE[-1])
  denoiser = Denoiser(vdm.FourierFeatures(network, (3, 4)), parameterizations.noise())
  return vdm.VariationalDiffusion(denoiser, vdm.Clock(config.highest, config.lowest))


def model(config: Config):
  rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, 200, max(config.steps, 201))
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
  how = dict(image_shape=SHAPE, num_steps=config.num_steps, num_levels=config.num_levels, decay=config.decay)
  return vdm.variational_diffusion(module(config), optimizer, **how)


def data(config: Config):
  del config
  return base.digits()


def measure(config: Config):
  scores = vdm.measure(module(config), num_levels=config.num_levels, num_steps=0)

  def evaluate(key, state, batch):
    bound_key, spread_key = jax.random.split(key)
    denoise, clock = vdm.learnt(module(config), state)
    even = lambda t: clock(jnp.float32(0)) + (clock(jnp.float32(1)) - clock(jnp.float32(0))) * t
    spread = lambda clock: loss_variance(denoise, clock, batch["image"], spread_key)
    return {**scores(bound_key, state, batch), "loss_variance": spread(clock), "loss_variance_even": spread(even)}

  return evaluate


def loss_variance(denoise, clock, pixels, key, num: int = 16):
  """Of the diffusion loss at one random level, about its mean for that image: nats squared [B], from `num` pairs of draws."""
  one = lambda key: likelihood.bound(denoise, clock, pixels, key, num_levels=1)["rate_diffusion"]
  drawn = jax.lax.map(one, jax.random.split(key, 2 * num))  # [2 num, B]
  return jnp.square(drawn[::2] - drawn[1::2]).mean(0) / 2


def protocol(config: Config):
  del config
  return {"bin_width": 1.0}


def pictures(config: Config, state) -> dict:
  """The clock, from the image to noise, beside even steps between the ends that it has learnt."""
  from experiments import plots

  _, clock = vdm.learnt(module(config), state)
  t = np.linspace(0, 1, 201, dtype=np.float32)
  log_snr = np.asarray(clock(jnp.asarray(t)))
  made, axes = plots.figure()
  axes[0, 0].plot(t, log_snr, color="black", label="learnt")
  axes[0, 0].plot(t[[0, -1]], log_snr[[0, -1]], color="grey", linestyle=":", label="even")
  axes[0, 0].set(xlabel="t", ylabel="log SNR")
  axes[0, 0].legend()
  return {"clock": plots.to_array(made)}
