"""A train step of a DCGAN on the CPU, ours against the same written in PyTorch.

Command: python benchmarks/gan_torch.py        (PyTorch is in the extra `bench`)
Hardware: 2 CPU cores
Minutes: 2
Expected: 1.05 times as fast at base 32, that of dcgan_mnist, and 0.92 at base 64 (wanted: 1.0)

A step is one move of each player on 64 images of 28 x 28: bytes to [-1, 1], the critic's loss on data and on fakes in a pass
each, for the batches have statistics of their own, the generator's loss on fakes of new noise, both gradients, Adam, and the
average of the generator.  "one draw" is the shorter step of many PyTorch programs, whose generator moves on the fakes that the
critic has just seen; it saves a pass through the generator, and is shown beside the other.  Both sides have one architecture
and start from the same weights, on which their outputs agree.  Images are random bytes: what a step costs does not depend on
them.  PyTorch has a thread for each core; ours counts the CPU as a device for each, as `--cpu-devices 2` does, and "one device"
is the same without.  Each has a process of its own, ours with the memory settings of every `gm-jax` command, PyTorch's as they
come; they take turns of STEPS, one ahead as the training loop does on a CPU.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np
import optax
import record
import torch
from torch import nn
from torch.nn import functional

from gm_jax import memory, parallel
from gm_jax.implicit import gan
from gm_jax.networks import dcgan

SHAPE, BATCH, LATENTS, THREADS = (28, 28, 1), 64, 64, 2
RATE, MOMENTUM, DECAY = 2e-4, 0.5, 0.999
BASES, STEPS, LEAST, TOLERANCE = (32, 64), 10, 1.0, 1e-4
IMAGES = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE)).astype(np.uint8)


def ours(base: int, strategy: Callable[[], parallel.Strategy]):
  """(the state at the start, {"steps": `() -> state` after STEPS of them}), as in a `gm-jax` command."""
  memory.keep()
  parallel.split_cpu(THREADS)
  strategy = strategy()
  generator, critic = dcgan.Generator(SHAPE, base), dcgan.Discriminator(base)
  optimizer = optax.adam(RATE, b1=MOMENTUM)
  model = gan.gan(generator, critic, gan.non_saturating(), optimizer, optimizer, num_latents=LATENTS, decay=DECAY)
  batch = {"image": IMAGES}
  state = strategy.init(model.init, 0, batch)
  start, held, step = jax.device_get(state), [state], strategy.step(model.step)

  def train():
    before = None
    for index in range(STEPS):
      held[0], metrics = step(np.uint32(0), np.int32(index), held[0], strategy.place_batch(batch))
      jax.block_until_ready(before)
      before = metrics
    return held[0]

  return start, {"steps": train}


class Generator(nn.Module):
  """z [B, Z] -> images [B, 1, 28, 28] in [-1, 1]."""

  def __init__(self, base: int):
    super().__init__()
    self.dense = nn.Linear(LATENTS, 7 * 7 * 2 * base, bias=False)
    self.layers = nn.Sequential(
      nn.BatchNorm2d(2 * base), nn.ReLU(),
      nn.ConvTranspose2d(2 * base, base, 4, 2, 1, bias=False), nn.BatchNorm2d(base), nn.ReLU(),
      nn.ConvTranspose2d(base, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip

  def forward(self, z):
    return self.layers(self.dense(z).reshape(len(z), -1, 7, 7))


class Discriminator(nn.Module):
  """Images [B, 1, 28, 28] -> logits [B]."""

  def __init__(self, base: int):
    super().__init__()
    self.layers = nn.Sequential(
      nn.Conv2d(1, base, 4, 2, 1), nn.LeakyReLU(0.2),
      nn.Conv2d(base, 2 * base, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * base), nn.LeakyReLU(0.2),
      nn.Flatten(), nn.Linear(7 * 7 * 2 * base, 1),
    )  # fmt: skip

  def forward(self, x):
    return self.layers(x)[:, 0]


def theirs(base: int, fresh: bool, state):
  """(number of parameters, {"steps": `() -> losses` of STEPS}) in PyTorch, from our weights; `fresh`: fakes for each player."""
  torch.set_num_threads(THREADS)
  generator, critic, average = Generator(base), Discriminator(base), Generator(base)
  copy(generator, critic, state, base)
  apart = difference(base, state, generator, critic)
  assert apart < TOLERANCE, f"the players differ by {apart}"
  average.load_state_dict(generator.state_dict())
  adam = lambda player: torch.optim.Adam(player.parameters(), lr=RATE, betas=(MOMENTUM, 0.999), fused=True)
  optimizers = adam(generator), adam(critic)
  images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous()
  softplus = functional.softplus

  def step():
    real = images.float() / 127.5 - 1
    if fresh:
      with torch.no_grad():
        fake = generator(torch.randn(BATCH, LATENTS))
    else:
      fake = generator(torch.randn(BATCH, LATENTS))
    optimizers[1].zero_grad()
    (softplus(-critic(real)) + softplus(critic(fake.detach()))).mean().backward()
    optimizers[1].step()

    optimizers[0].zero_grad()
    critic.requires_grad_(False)  # the generator's loss has no use for the critic's gradient
    loss = softplus(-critic(generator(torch.randn(BATCH, LATENTS)) if fresh else fake)).mean()
    loss.backward()
    critic.requires_grad_(True)
    optimizers[0].step()
    with torch.no_grad():
      torch._foreach_lerp_(floats(average), floats(generator), 1 - DECAY)
    return loss.item()

  return sum(tensor.numel() for player in (generator, critic) for tensor in player.parameters()), {
    "steps": lambda: [step() for _ in range(STEPS)]
  }


def floats(module) -> list:
  """Parameters and running statistics."""
  return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]


def copy(generator: Generator, critic: Discriminator, state, base: int) -> None:
  """Our weights in their places; whatever is an image is [C, H, W] there and [H, W, C] here."""
  mine, its = state.generator.params, state.critic.params
  flat = lambda kernel, size: kernel.reshape(7, 7, size, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[::-1])
  turned = lambda layer: layer["kernel"][::-1, ::-1].transpose(2, 3, 0, 1)
  plain = lambda layer: layer["kernel"].transpose(3, 2, 0, 1)
  norm = lambda layer: [layer["scale"], layer["bias"]]
  dense = mine["Dense_0"]["kernel"].reshape(-1, 7, 7, 2 * base).transpose(3, 1, 2, 0).reshape(-1, LATENTS)
  values = [dense, *norm(mine["BatchNorm_0"]), turned(mine["ConvTranspose_0"]), *norm(mine["BatchNorm_1"])]
  fill(generator, [*values, turned(mine["ConvTranspose_1"]), mine["ConvTranspose_1"]["bias"]])
  values = [plain(its["Conv_0"]), its["Conv_0"]["bias"], plain(its["Conv_1"]), *norm(its["BatchNorm_0"])]
  fill(critic, [*values, flat(its["Dense_0"]["kernel"], 2 * base), its["Dense_0"]["bias"]])


def fill(module, values: list) -> None:
  """Every parameter, in the order in which the module was built."""
  parameters = list(module.parameters())
  assert [tuple(parameter.shape) for parameter in parameters] == [value.shape for value in values]
  with torch.no_grad():
    for parameter, value in zip(parameters, values):
      parameter.copy_(torch.from_numpy(np.array(value)))


def difference(base: int, state, generator, critic) -> float:
  """The largest difference between what the players make and say here and there, of the same noise and images, in training."""
  z = np.random.default_rng(1).normal(size=(BATCH, LATENTS)).astype(np.float32)
  variables = lambda player: {"params": player.params, **player.stats}
  apply = lambda module, player, x: module.apply(variables(player), x, True, mutable=["batch_stats"])[0]
  made = np.asarray(apply(dcgan.Generator(SHAPE, base), state.generator, z))
  said = np.asarray(apply(dcgan.Discriminator(base), state.critic, made))
  with torch.no_grad():
    theirs_made = generator(torch.from_numpy(z))
    theirs_said = critic(torch.tensor(made).permute(0, 3, 1, 2).contiguous())
  return max(np.abs(made - theirs_made.permute(0, 2, 3, 1).numpy()).max(), np.abs(said - theirs_said.numpy()).max())


def main() -> int:
  rows = {}
  for base in BASES:
    with record.apart({"gm_jax": (ours, base, parallel.dp)}) as (known, _):
      state = known["gm_jax"]
    mine = {"gm_jax": (ours, base, parallel.dp), "gm_jax, one device": (ours, base, parallel.single)}
    its = {"pytorch": (theirs, base, True, state), "pytorch, one draw": (theirs, base, False, state)}
    with record.apart(mine | its) as (known, functions):
      parameters = known["pytorch"]
      players = state.generator.params, state.critic.params
      assert parameters == sum(leaf.size for leaf in jax.tree.leaves(players)), "the players are not of one size"
      seconds = record.interleaved(functions("steps"), repeats=15)
    times = {name: record.summary([value / STEPS for value in values]) for name, values in seconds.items()}
    ratios = {name: round(times[name]["median_ms"] / times["gm_jax"]["median_ms"], 2) for name in its}
    rows[f"base {base}"] = {"parameters": parameters, "times": times, "times_as_fast": ratios}
    print(f"base {base}", {name: time["median_ms"] for name, time in times.items()}, ratios, flush=True)
  rows = {"batch": BATCH, "torch_threads": THREADS, "rows": rows}
  print(record.write("gan_torch", rows, ("jax", "jaxlib", "flax", "numpy", "torch")).relative_to(record.ROOT))
  return int(min(row["times_as_fast"]["pytorch"] for row in rows["rows"].values()) < LEAST)


if __name__ == "__main__":
  sys.exit(main())
