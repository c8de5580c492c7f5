"""A train step of a DCGAN on the CPU, ours against the same written in PyTorch.

Command: python benchmarks/gan_torch.py        (PyTorch is in the extra `bench`)
Hardware: 2 CPU cores
Minutes: 2
Expected: 1.0 times as fast at base 32, 0.89 at base 64 (wanted: 1.0)

A step is one move of each player on 64 images of 28 x 28: bytes to [-1, 1], the critic's loss on data and on fakes in a pass
each, for the batches have statistics of their own, the generator's loss on fakes of new noise, both gradients, Adam, and the
average of the generator.  "one draw" is the shorter step of many PyTorch programs, whose generator moves on the fakes that the
critic has just seen; it saves a pass through the generator, and is shown beside the other.  Both sides have one architecture
and start from the same weights, on which their outputs agree.  Images are random bytes: what a step costs does not depend on
them.  PyTorch has a thread for each core; ours counts the CPU as a device for each, as `--cpu-devices 2` does, and "one device"
is the same without.
"""

import sys

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
BASES, LEAST, TOLERANCE = (32, 64), 1.0, 1e-4
IMAGES = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE)).astype(np.uint8)


def ours(base: int, strategy: parallel.Strategy):
  """(the state at the start, `() -> state` after a step), compiled."""
  generator, critic = dcgan.Generator(SHAPE, base), dcgan.Discriminator(base)
  optimizer = optax.adam(RATE, b1=MOMENTUM)
  model = gan.gan(generator, critic, gan.non_saturating(), optimizer, optimizer, num_latents=LATENTS, decay=DECAY)
  batch = {"image": IMAGES}
  state = strategy.init(model.init, 0, batch)
  start, held, step = jax.device_get(state), [state], strategy.step(model.step)

  def train():
    held[0], metrics = step(np.uint32(0), np.int32(0), held[0], strategy.place_batch(batch))
    return held[0], metrics

  return start, train


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


def theirs(base: int, state):
  """(generator, discriminator, {name: `() -> loss` of a step}) in PyTorch, from our weights."""
  generator, critic, average = Generator(base), Discriminator(base), Generator(base)
  copy(generator, critic, state, base)
  average.load_state_dict(generator.state_dict())
  adam = lambda player: torch.optim.Adam(player.parameters(), lr=RATE, betas=(MOMENTUM, 0.999), fused=True)
  optimizers = adam(generator), adam(critic)
  images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous()
  softplus = functional.softplus

  def step(fresh: bool):
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

  return generator, critic, {"pytorch": lambda: step(True), "pytorch, one draw": lambda: step(False)}


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
  torch.set_num_threads(THREADS)
  memory.keep()  # as every gm-jax command does; it is the whole process's
  parallel.split_cpu(THREADS)
  rows = {}
  for base in BASES:
    state, train = ours(base, parallel.dp())
    _, train_on_one = ours(base, parallel.single())
    generator, critic, steps = theirs(base, state)
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    parameters = count(state.generator.params) + count(state.critic.params)
    assert parameters == sum(tensor.numel() for player in (generator, critic) for tensor in player.parameters())
    apart = difference(base, state, generator, critic)
    assert apart < TOLERANCE, f"the players differ by {apart}"
    seconds = record.interleaved({"gm_jax": train, "gm_jax, one device": train_on_one, **steps}, repeats=31, warmup=3)
    times = {name: record.summary(values) for name, values in seconds.items()}
    mine = times["gm_jax"]["median_ms"]
    ratios = {name: round(times[name]["median_ms"] / mine, 2) for name in steps}
    rows[f"base {base}"] = {"parameters": parameters, "times": times, "times_as_fast": ratios}
    print(f"base {base}", {name: time["median_ms"] for name, time in times.items()}, ratios, flush=True)
  rows = {"batch": BATCH, "torch_threads": THREADS, "rows": rows}
  print(record.write("gan_torch", rows, ("jax", "jaxlib", "flax", "numpy", "torch")).relative_to(record.ROOT))
  return int(min(row["times_as_fast"]["pytorch"] for row in rows["rows"].values()) < LEAST)


if __name__ == "__main__":
  sys.exit(main())
