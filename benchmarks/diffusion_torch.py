"""Diffusion on the CPU: a train step and a sample, ours against networks of equal size of two PyTorch libraries.

Command: python benchmarks/diffusion_torch.py        (extra `bench`, and pip install diffusers denoising-diffusion-pytorch)
Hardware: 2 CPU cores
Minutes: 9
Expected: times as fast: a train step of 16 images 1.06 and 1.27, of 64 1.05 and 1.35, a sample 1.21 and 1.55 (wanted: 1)

Images are 32 x 32 x 3.  A train step is the noise's squared error at random levels, its gradient, Adam (fused in PyTorch), and
the running average of the parameters that samples are drawn with.  A sample is DDIM in EVALUATIONS steps.  Ours and diffusers'
are DDPM's network with half its channels, to the last parameter; that of denoising-diffusion-pytorch has the width whose number
of parameters is nearest.  Batches are random numbers: what a step costs does not depend on them.  Theirs have a thread for each
core; ours counts the CPU as a device for each, as `--cpu-devices 2` does, and "one device" is the same without.  Each has a
process of its own, ours with the memory settings of every `gm-jax` command, theirs as they come; they take turns.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np
import optax
import record
import torch
from denoising_diffusion_pytorch import Unet
from diffusers import DDIMScheduler, UNet2DModel

from gm_jax import memory, parallel, sampling
from gm_jax.networks.unet import ddpm_cifar10
from gm_jax.score import diffusion, grids, noise, recipes, solvers

SHAPE, THREADS = (32, 32, 3), 2
CHANNELS = (64, 128, 128, 128)
TRAIN_BATCHES, SAMPLE_BATCH, EVALUATIONS = (16, 64), 4, 10
DECAY = 0.9999
TABLE = noise.discrete(noise.linear_betas())
PARAMETERS = 8_952_067
LEAST = 1.0


def ours(strategy: Callable[[], parallel.Strategy], batch_size: int):
  """(number of parameters, {"train step": `() -> parameters`, "sample": `() -> images`}), as in a `gm-jax` command."""
  memory.keep()
  parallel.split_cpu(THREADS)
  strategy = strategy()
  sampler = diffusion.Sampler(solvers.DDIM()(grids.trailing(TABLE, EVALUATIONS)))
  network = ddpm_cifar10(channels=CHANNELS, dropout=0.0)
  model = diffusion.diffusion(network, optax.adam(1e-4), recipes.ddpm(), sampler, image_shape=SHAPE)
  batch = {"image": np.random.default_rng(0).integers(0, 256, (batch_size, *SHAPE)).astype(np.uint8)}
  held = [strategy.init(model.init, 0, batch)]
  step = strategy.step(model.step)

  def train():
    held[0], _ = step(np.uint32(0), np.int32(0), held[0], strategy.place_batch(batch))
    return held[0].net.params

  count = sum(leaf.size for leaf in jax.tree.leaves(held[0].net.params))
  return count, {"train step": train, "sample": lambda: sampling.draw(model, held[0], seed=0, num=SAMPLE_BATCH)}


def of_diffusers(batch_size: int):
  """As `ours`, in PyTorch."""
  down = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
  up = ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
  fields = dict(layers_per_block=2, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None)
  network = UNet2DModel(32, 3, 3, down_block_types=down, up_block_types=up, block_out_channels=CHANNELS, **fields)
  scheduler = DDIMScheduler(1000, timestep_spacing="trailing", clip_sample=False)

  @torch.no_grad()
  def sample():
    scheduler.set_timesteps(EVALUATIONS)
    x = torch.randn(SAMPLE_BATCH, 3, 32, 32)
    for t in scheduler.timesteps:
      x = scheduler.step(network(x, t).sample, t, x).prev_sample
    return x

  return trained(network, lambda x, t: network(x, t).sample, sample, batch_size)


def of_denoising_diffusion(wanted: int, batch_size: int):
  """Its U-Net at the width that has nearly `wanted` parameters, in multiples of eight, and its own DDIM."""
  from denoising_diffusion_pytorch import GaussianDiffusion
  from denoising_diffusion_pytorch import denoising_diffusion_pytorch as package

  package.tqdm = lambda iterable, **_: iterable  # no progress bars
  count = lambda network: sum(parameter.numel() for parameter in network.parameters())
  make = lambda width: Unet(dim=width, dim_mults=(1, 2, 2, 2), flash_attn=False)
  network = make(min(range(16, 129, 8), key=lambda width: abs(count(make(width)) - wanted)))
  process = GaussianDiffusion(network, image_size=32, timesteps=1000, sampling_timesteps=EVALUATIONS, objective="pred_noise")
  sample = torch.no_grad()(lambda: process.ddim_sample((SAMPLE_BATCH, 3, 32, 32), return_all_timesteps=False))
  return trained(network, network, sample, batch_size)


def trained(network, guess, sample, batch_size: int):
  """As `ours`, with DDPM's Algorithm 1, Adam and an average."""
  torch.set_num_threads(THREADS)
  parameters = list(network.parameters())
  average = [parameter.detach().clone() for parameter in parameters]
  optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)
  alphas_bar = torch.tensor(noise.alpha(TABLE.log_snr(np.arange(1, 1001) / 1000)) ** 2, dtype=torch.float32)
  x_0 = torch.rand(batch_size, 3, 32, 32) * 2 - 1

  def train():
    t, eps = torch.randint(0, 1000, (batch_size,)), torch.randn_like(x_0)
    kept = alphas_bar[t][:, None, None, None]
    loss = (guess(kept.sqrt() * x_0 + (1 - kept).sqrt() * eps, t) - eps).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1 - DECAY)
    return loss.item()

  return sum(parameter.numel() for parameter in parameters), {"train step": train, "sample": sample}


def measure(batch_size: int, whats: dict[str, int]) -> dict:
  """{what: times of all, and how many times as fast ours are}; `whats`: {what: repeats}."""
  mine = {"gm_jax": (ours, parallel.dp, batch_size), "gm_jax, one device": (ours, parallel.single, batch_size)}
  theirs = {"diffusers": (of_diffusers, batch_size)}
  theirs["denoising-diffusion-pytorch"] = (of_denoising_diffusion, PARAMETERS, batch_size)
  rows = {}
  with record.apart(mine | theirs) as (parameters, functions):
    assert parameters["gm_jax"] == parameters["diffusers"] == PARAMETERS, f"the networks are not of one size: {parameters}"
    for what, repeats in whats.items():
      seconds = record.interleaved(functions(what), repeats=repeats)
      times = {name: record.summary(values) for name, values in seconds.items()}
      mine_ms = times["gm_jax"]["median_ms"]
      ratios = {name: round(time["median_ms"] / mine_ms, 2) for name, time in times.items() if "gm_jax" not in name}
      rows[what] = {"times": times, "times_as_fast": ratios}
      print(batch_size, what, {name: time["median_ms"] for name, time in times.items()}, ratios, flush=True)
  return {"parameters": parameters, **rows}


def main() -> int:
  small, large = TRAIN_BATCHES
  first, second = measure(small, {"train step": 15, "sample": 9}), measure(large, {"train step": 7})
  rows = {f"train step of {small}": first["train step"], f"train step of {large}": second["train step"]}
  rows["sample"] = first["sample"]
  payload = {"parameters": first["parameters"], "images": SAMPLE_BATCH, "evaluations": EVALUATIONS, "torch_threads": THREADS}
  packages = ("jax", "jaxlib", "flax", "numpy", "torch", "diffusers", "denoising-diffusion-pytorch")
  print(record.write("diffusion_torch", payload | rows, packages).relative_to(record.ROOT))
  return int(min(min(row["times_as_fast"].values()) for row in rows.values()) < LEAST)


if __name__ == "__main__":
  sys.exit(main())
