"""A process that trains, and can be killed: python -m tests.drivers.run RUN --model vae --steps 60 [--port P --process 0].

Standard output, a line at a time: `begin STEP`, `step STEP` after each step, `flush` before each save, `done HASH` at the end.
"""

import argparse
import hashlib
import pathlib
import sys
import time

import flax.linen as nn
import jax
import numpy as np
import optax

from gm_jax import core, parallel
from gm_jax.approximate import vae
from gm_jax.errors import CheckpointError, NonFiniteError, Stopped
from gm_jax.hooks import Evaluation, Hook
from gm_jax.implicit import gan
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from gm_jax.networks.norm import BatchNorm
from gm_jax.train import train

BATCH_SIZE = 8


class Batches:
  """Noise with a bright corner; batch i is a function of i."""

  batch_size = BATCH_SIZE

  def __init__(self, pause: float):
    self.pause = pause  # seconds, so that a step lasts long enough to be met by a signal

  def __call__(self, step):
    time.sleep(self.pause)
    image = np.random.default_rng(step).integers(0, 256, (BATCH_SIZE, 4, 4, 1), dtype=np.uint8)
    image[:, :2, :2] //= 8
    return {"image": image}

  def rows(self, step, start, stop):
    return {name: array[start:stop] for name, array in self(step).items()}


class Generator(nn.Module):
  @nn.compact
  def __call__(self, z, train):
    h = nn.relu(BatchNorm()(nn.Dense(16, use_bias=False)(z), train))
    return nn.tanh(nn.Dense(16)(h)).reshape(len(z), 4, 4, 1)


class Critic(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    return nn.Dense(1)(nn.relu(nn.Dense(16)(x.reshape(len(x), -1))))[:, 0]


def make(name: str) -> core.GenerativeModel:
  if name == "vae":
    module = vae.VAE(FlatEncoder((16,)), FlatDecoder((16,), (4, 4, 1)), vae.bernoulli(), num_latents=2)
    return vae.vae(module, optax.adam(3e-3))
  optimizer = optax.adam(1e-3, b1=0.5)
  return gan.gan(Generator(), Critic(), gan.wgan_gp(), optimizer, optimizer, num_latents=3, n_critic=2)


class Announce(Hook):
  """Tells the parent where the run is."""

  def begin(self, run, step, steps):
    print("begin", step, flush=True)

  def tick(self, step):
    print("step", step, flush=True)

  def flush(self):
    print("flush", flush=True)


def first_leaf(state):
  return {"first": float(np.asarray(jax.tree.leaves(state)[0]).mean())}


def digest(state) -> str:
  """One hash of every leaf's name, type and bytes."""
  sha = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    leaf = np.asarray(leaf)
    sha.update(f"{jax.tree_util.keystr(path)}{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
  return sha.hexdigest()


def main() -> int:
  parser = argparse.ArgumentParser()
  parser.add_argument("run", type=pathlib.Path)
  parser.add_argument("--model", default="vae")
  parser.add_argument("--steps", type=int, default=20)
  parser.add_argument("--save-every", type=int, default=5)
  parser.add_argument("--steps-per-call", type=int, default=1)
  parser.add_argument("--strategy", default="dp")
  parser.add_argument("--pause", type=float, default=0.0)
  parser.add_argument("--port", type=int)
  parser.add_argument("--process", type=int, default=0)
  parser.add_argument("--processes", type=int, default=2)
  options = parser.parse_args()
  if options.port:
    parallel.initialize_processes(f"localhost:{options.port}", options.processes, options.process)
  try:
    state = train(
      make(options.model),
      Batches(options.pause),
      seed=7,
      steps=options.steps,
      run=options.run,
      strategy=parallel.BY_NAME[options.strategy](),
      hooks=[Evaluation(7, first_leaf), Announce()],
      log_every=1 if options.steps_per_call == 1 else options.steps_per_call,
      save_every=options.save_every,
      steps_per_call=options.steps_per_call,
    )
  except Stopped as stopped:
    print(stopped, file=sys.stderr)
    return 128 + stopped.signal_number
  except (NonFiniteError, CheckpointError) as error:
    print(error, file=sys.stderr)
    return 1
  print("done", digest(state), flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
