"""The vector quantised VAE: an encoder that names a code for each place of a small map, a decoder that explains x by them.

    log p(x)  >=  log p(x | codes(x))  +  log p(codes(x))
    nll_bound  =      distortion       +       rate                                            in nats

a bound since q(codes | x) is certain of its codes and so has no entropy.  Under the uniform prior over K codes, with which it
is trained, the rate is log K per place; a prior learnt afterwards lowers it (two_stage.py).

One level: van den Oord et al. 2017 (https://arxiv.org/abs/1711.00937).  Two levels, a small map of what is global and a larger
one of details: Razavi et al. 2019 (https://arxiv.org/abs/1906.00446).
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import random
from gm_jax.approximate.vae import Likelihood
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.networks.quantizer import Quantized, perplexity


class Level(NamedTuple):
  """One map of codes."""

  name: str
  grid: tuple[int, int]  # (h, w)
  num_codes: int

  @property
  def uniform_rate(self) -> float:
    """Nats of one map under the uniform prior."""
    return math.prod(self.grid) * math.log(self.num_codes)


class VQVAE(nn.Module):
  """One level of codes.  `VQVAE2` has the same methods; tuples are of levels, what is told first before what hangs on it."""

  encoder: nn.Module  # (x [B, H, W, C], train) -> z [B, h, w, D]
  decoder: nn.Module  # (vectors [B, h, w, D], train) -> outputs [B, H, W, C * likelihood.channels]
  codebook: nn.Module  # networks/quantizer.py
  likelihood: Likelihood
  grid: tuple[int, int]  # (h, w)

  @property
  def levels(self) -> tuple[Level, ...]:
    return (Level("codes", self.grid, self.codebook.num_codes),)

  def encode(self, key, x, train: bool) -> tuple[Quantized, ...]:
    return (_quantize(self.codebook, key, self.encoder(x, train), self.grid, train),)

  def embed(self, codes: tuple) -> tuple:
    """Maps of codes, int32 [B, h, w] each -> their vectors, [B, h, w, D] each."""
    return (self.codebook.embed(codes[0]),)

  def decode(self, vectors: tuple, train: bool):
    """Vectors, [B, h, w, D] each -> outputs [B, H, W, C * likelihood.channels]."""
    return self.decoder(vectors[0], train)


class VQVAE2(nn.Module):
  """Two levels of codes: the bottom ones are chosen, and decoded, with the top ones in view."""

  encoder: nn.Module  # (x [B, H, W, C], train) -> features [B, h, w, F]
  top_encoder: nn.Module  # (features, train) -> z of the top [B, h', w', D']
  top_decoder: nn.Module  # (vectors of the top, train) -> features [B, h, w, F']
  decoder: nn.Module  # (top's features beside the vectors of the bottom [B, h, w, F' + D], train) -> outputs [B, H, W, ...]
  top_codebook: nn.Module  # networks/quantizer.py
  codebook: nn.Module
  likelihood: Likelihood
  top_grid: tuple[int, int]  # (h', w')
  grid: tuple[int, int]  # (h, w)
  features: int  # D

  def setup(self):
    self.choose = nn.Dense(self.features)

  @property
  def levels(self) -> tuple[Level, ...]:
    top = Level("top", self.top_grid, self.top_codebook.num_codes)
    return top, Level("bottom", self.grid, self.codebook.num_codes)

  def encode(self, key, x, train: bool) -> tuple[Quantized, ...]:
    top_key, bottom_key = jax.random.split(key)
    features = self.encoder(x, train)
    top = _quantize(self.top_codebook, top_key, self.top_encoder(nn.relu(features), train), self.top_grid, train)
    z = self.choose(_beside(self.top_decoder(top.vectors, train), features))
    return top, _quantize(self.codebook, bottom_key, z, self.grid, train)

  def embed(self, codes: tuple) -> tuple:
    """Maps of codes, int32 [B, h, w] each -> their vectors, [B, h, w, D] each."""
    return self.top_codebook.embed(codes[0]), self.codebook.embed(codes[1])

  def decode(self, vectors: tuple, train: bool):
    """Vectors, [B, h, w, D] each -> outputs [B, H, W, C * likelihood.channels]."""
    return self.decoder(_beside(self.top_decoder(vectors[0], train), vectors[1]), train)


def objective(vq: VQVAE | VQVAE2, key, batch, train: bool):
  """Distortion and the codebooks' penalties in training; what is evaluated is the bound itself."""
  data_key, code_key = jax.random.split(key)
  x = vq.likelihood.observe(data_key, batch["image"])
  found = vq.encode(code_key, x, train)
  distortion = -vq.likelihood.log_prob(vq.decode(tuple(level.vectors for level in found), train), x)  # [B]
  rate = jnp.full(len(x), sum(level.uniform_rate for level in vq.levels), jnp.float32)
  if not train:
    return distortion + rate, {"distortion": distortion, "rate": rate}
  penalty = sum(level.penalty for level in found)
  used = perplexities(vq.levels, [level.codes for level in found])
  used = {name: jnp.broadcast_to(value, rate.shape) for name, value in used.items()}  # of the batch, not of an example
  return distortion + penalty, {"distortion": distortion, "rate": rate, "penalty": penalty, **used}


def uniform_sample(vq: VQVAE | VQVAE2, key, num: int, condition=None):
  """Mean images of codes drawn from the uniform prior.  [num, H, W, C]"""
  del condition
  keys = jax.random.split(key, len(vq.levels))
  codes = tuple(random.randint(key, num, level.grid, 0, level.num_codes) for key, level in zip(keys, vq.levels))
  return vq.likelihood.mean(vq.decode(vq.embed(codes), train=False))


def vqvae(module: VQVAE | VQVAE2, optimizer: optax.GradientTransformation, *, decay: float = 0.999) -> GenerativeModel:
  """A VQ-VAE as a generative model; evaluate returns `nll_bound`, `distortion` and `rate`, in nats.

  A step reports as well how many codes are in use, `perplexity` or, of two levels, `perplexity_top` and `perplexity_bottom`.

  Args:
    module: networks, codebooks, likelihood and sizes of the maps.
    optimizer: one, for all networks together.
    decay: of the average of parameters and codebooks, which `sample` and `evaluate` read.
  """
  return from_objective(module, objective, uniform_sample, optimizer, reports="nll_bound", decay=decay)


def perplexity_names(levels: tuple[Level, ...]) -> list[str]:
  """What the metrics call how many codes of each level are in use."""
  return [f"perplexity_{level.name}" for level in levels] if len(levels) > 1 else ["perplexity"]


def perplexities(levels: tuple[Level, ...], codes) -> dict:
  """{name: how many codes a global batch uses} of maps int32 [B, h, w], one for each level."""
  used = (perplexity(found, level.num_codes) for level, found in zip(levels, codes))
  return dict(zip(perplexity_names(levels), used))


# What a trained VQ-VAE can do besides: encode, decode, and both, with what it costs.


def encode(module: VQVAE | VQVAE2, key, state, pixels) -> tuple:
  """The codes of images [B, H, W, C]: one map int32 [B, h, w] for each level."""
  return explain(module, key, state, pixels)[0]


def decode(module: VQVAE | VQVAE2, state, codes: tuple):
  """Mean images of p(x | codes) for one map of codes int32 [B, h, w] for each level."""
  draw = lambda vq: vq.likelihood.mean(vq.decode(vq.embed(codes), train=False))
  return nn.apply(draw, module)(state.average.variables)


def explain(module: VQVAE | VQVAE2, key, state, pixels) -> tuple[tuple, jax.Array]:
  """The codes of images [B, H, W, C], and -log p(x | codes) of each image in nats [B]."""

  def explained(vq):
    x = vq.likelihood.observe(key, pixels)
    found = vq.encode(key, x, train=False)
    outputs = vq.decode(tuple(level.vectors for level in found), train=False)
    return tuple(level.codes for level in found), -vq.likelihood.log_prob(outputs, x)

  return nn.apply(explained, module)(state.average.variables)


def _quantize(codebook: nn.Module, key, z, grid: tuple[int, int], train: bool) -> Quantized:
  if z.shape[1:3] != tuple(grid):
    raise ValueError(f"the encoder makes maps of {z.shape[1]} x {z.shape[2]} vectors, the grid is {grid[0]} x {grid[1]}")
  return codebook(key, z, train)


def _beside(a, b):
  return jnp.concatenate([a, b], axis=-1)
