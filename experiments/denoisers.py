"""What the diffusion experiments share: a Config, the ways to sample, and how a run is scored, shown and used."""

import dataclasses
from typing import ClassVar, Literal

import jax
import numpy as np
import optax

from experiments import base
from gm_jax import images, random
from gm_jax.networks.unet import UNet
from gm_jax.score import diffusion, grids, guidance, likelihood, multistep, solvers
from gm_jax.score.recipes import Recipe
from gm_jax.tasks.editing import Editor

SOLVERS = {
  "ancestral": solvers.Ancestral(),
  "ddim": solvers.DDIM(),
  "heun": solvers.Heun(),
  "dpmpp2": multistep.DPMpp(2),
  "dpmpp3": multistep.DPMpp(3),
  "dpmpp2-sde": multistep.DPMpp(2, sde=True),
  "unipc": multistep.UniPC(2),
  "ipndm": multistep.IPNDM(4),
}
Solver = Literal["ancestral", "ddim", "heun", "dpmpp2", "dpmpp3", "dpmpp2-sde", "unipc", "ipndm"]
LEAST, LARGEST = 0.002, 80.0  # sigma / alpha between which samples are made


@dataclasses.dataclass(frozen=True)
class Diffusion(base.Run):
  """The fields of a run on images, whose labels are learnt with them."""

  steps: int = 5000
  batch_size: int = 64  # at equal pictures, more and smaller steps learn more
  channels: tuple[int, ...] = (32, 64)  # of the U-Net's levels, from the finest
  blocks: int = 1  # residual blocks of each level
  learning_rate: float = 2e-3  # of Adam: it rises for 200 steps, then falls along a cosine
  label_dropout: float = 0.1  # share of examples whose label is hidden
  decay: float = 0.999  # of the average of the parameters
  solver: Solver = "dpmpp2"  # of samples
  sample_steps: int = 20  # of the solver
  guidance: float = 2.0  # scale, for samples of a label: 1 is none

  LEAST: ClassVar[dict[str, float]] = base.Run.LEAST | {"sample_steps": 1, "blocks": 1}


def network(config: Diffusion, num_classes: int) -> UNet:
  """On patches of 2 x 2 pixels, since a convolution at full size is what a CPU is worst at."""
  last = len(config.channels) - 1
  return UNet(config.channels, blocks=config.blocks, patch=2, attention=(last,), num_classes=num_classes)


def grid(num_steps: int) -> np.ndarray:
  return grids.karras(num_steps, LEAST, LARGEST)


def steering(config, num_classes: int) -> tuple:
  """Towards the label, if there is one; and guesses kept in the range of images."""
  toward = (guidance.classifier_free(config.guidance, num_classes),) if num_classes else ()
  return (*toward, guidance.clipped())


def sampler(config, num_classes: int) -> diffusion.Sampler:
  return diffusion.Sampler(SOLVERS[config.solver](grid(config.sample_steps)), steering(config, num_classes))


def model(config: Diffusion, recipe: Recipe, shape: tuple, num_classes: int):
  rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, 200, max(config.steps, 201))
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
  told = dict(num_classes=num_classes, label_dropout=config.label_dropout, decay=config.decay)
  chosen = sampler(config, num_classes)
  return diffusion.diffusion(network(config, num_classes), optimizer, recipe, chosen, image_shape=shape, **told)


def module(config: Diffusion, recipe: Recipe, num_classes: int) -> diffusion.Denoiser:
  return diffusion.Denoiser(network(config, num_classes), recipe.parameterization, num_classes)


def editor(config, module: diffusion.Denoiser) -> Editor:
  """What `gm-jax edit`, `solvers` and `likelihood` ask of a run."""
  guided = steering(config, module.num_classes)
  return Editor(lambda state: diffusion.denoiser(module, state), grid, module.num_classes, guided)


def measure(module: diffusion.Denoiser):
  """The variational bound, at 16 levels for each image and without its label; the flow's density is `gm-jax likelihood`'s."""
  score = likelihood.measure(module, num_levels=16, num_steps=0)
  return lambda key, state, batch: score(key, state, {"image": batch["image"]})


def pictures(config, module: diffusion.Denoiser, state, shape: tuple) -> dict[str, np.ndarray]:
  """A column for each class, and the guesses on the way from noise to images."""
  told, denoise = sampler(config, module.num_classes), diffusion.denoiser(module, state)
  label = np.tile(np.arange(module.num_classes), 8).astype(np.int32)
  key, frames = random.stream(0, random.SAMPLE), min(10, told.method.num_evaluations)
  draw = jax.jit(lambda key, label: told(denoise, key, len(label), shape, label))
  trace = jax.jit(lambda key, label: told(denoise, key, len(label), shape, label, num_frames=frames)[1])
  forming = np.asarray(images.from_symmetric(trace(key, label[: module.num_classes]))).swapaxes(0, 1)
  return {
    "classes": images.grid(np.asarray(images.from_symmetric(draw(key, label))), columns=module.num_classes),
    "forming": images.grid(forming.reshape(-1, *shape), columns=frames),
  }
