"""DDPM on CIFAR-10: the paper's U-Net of 35.7 M parameters, computing in bfloat16.

Ho, Jain and Abbeel 2020 at its own size, told the class, on a continuous cosine schedule; `--channels 32 64 64` is a network
that a CPU can train.  The images at hand had been through JPEG: bits/dim are not comparable with published ones.

Family: score
Command: gm-jax train ddpm_cifar10 --data-dir DIR
Hardware: one NVIDIA H200
Minutes: not measured yet
Expected: not measured yet
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax

from experiments import denoisers
from gm_jax import data as datasets
from gm_jax.networks.unet import ddpm_cifar10
from gm_jax.score import diffusion, noise, recipes

SHAPE, CLASSES = (32, 32, 3), 10
RECIPE = recipes.ddpm(noise.cosine())


@dataclasses.dataclass(frozen=True)
class Config(denoisers.Diffusion):
  steps: int = 40_000
  batch_size: int = 128
  channels: tuple[int, ...] = (128, 256, 256, 256)  # of the U-Net's levels, from the finest
  blocks: int = 2  # residual blocks of each level
  learning_rate: float = 2e-4  # of Adam: it rises for 5,000 steps and stays
  dropout: float = 0.1
  decay: float = 0.9999  # of the average of the parameters
  precision: Literal["bfloat16", "float32"] = "bfloat16"  # of the network's inside
  sample_steps: int = 20  # of the solver
  save_every: int = 5000
  sample_every: int = 5000


def network(config: Config):
  dtype = jnp.dtype(config.precision)
  fields = dict(channels=config.channels, blocks=config.blocks, dropout=config.dropout, num_classes=CLASSES, dtype=dtype)
  return ddpm_cifar10(**fields)


def model(config: Config):
  rate = optax.linear_schedule(0.0, config.learning_rate, min(5000, config.steps))
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
  told = dict(num_classes=CLASSES, label_dropout=config.label_dropout, decay=config.decay)
  sampler = denoisers.sampler(config, CLASSES)
  return diffusion.diffusion(network(config), optimizer, RECIPE, sampler, image_shape=SHAPE, **told)


def module(config: Config) -> diffusion.Denoiser:
  return diffusion.Denoiser(network(config), RECIPE.parameterization, CLASSES)


def data(config: Config):
  return {split: datasets.tfds_images("cifar10", split, config.data_dir) for split in ("train", "test")}


def measure(config: Config):
  return denoisers.measure(module(config))


def protocol(config: Config):
  del config
  return {"bin_width": 1.0, "source_images": "JPEG-decoded"}


def editor(config: Config):
  return denoisers.editor(config, module(config))


def pictures(config: Config, state) -> dict:
  return denoisers.pictures(config, module(config), state, SHAPE)
