"""The style-based generator and its critic: StyleGAN2 (Karras et al. 2020).

Latents do not enter as an image.  A mapping network turns them into w, whose components have room to stand for one thing each;
every convolution reads its own scale for each input channel off w (a style), and everything random that w should not have to
decide, the place of a hair, comes in as noise at each pixel.  The image is the sum of what each level adds (skips); the critic
is a residual network.

Scaling the input of a convolution by s and its output by d is the convolution with weights d s W, another one for each
example, at the price of one shared convolution.  Demodulation is d = 1 / |s W|, which gives each output channel unit variance
where the input has it: an exact normalisation in expectation, that cannot erase what the activations of one image say.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import random, rows
from gm_jax.errors import UserError
from gm_jax.networks.conv import convolve
from gm_jax.networks.equalized import HE, EqualConv, EqualDense, he, leaky, pixel_norm
from gm_jax.networks.minibatch import append_deviation
from gm_jax.networks.players import Critic


class Generator(nn.Module):
  """z [B, Z] (and labels int32 [B]) -> images [B, *shape].

  Noise and mixing come from `key`, or from the stream "dropout" where none is given: row i's from the key and i alone.

  Attributes:
    channels: of each level, from the coarsest; each level doubles the image.
    width: of the mapping network and of w.
    mapping: layers of the mapping network, which learns at a hundredth of the pace.
    mixing: share of the training images whose styles come from two latents, one for the levels below a random layer.
    num_classes: of the labels, which the mapping network sees; 0 for none.
    momentum: of the running mean of w, in the collection "latent_stats".
    output: of every pixel.  The paper's is linear; with tanh, what must be black everywhere can be, whatever w is.
  """

  shape: tuple[int, int, int]
  channels: Sequence[int] = (64, 64, 32)
  width: int = 64
  mapping: int = 8
  mixing: float = 0.9
  num_classes: int = 0
  momentum: float = 0.995
  output: Callable = lambda image: image

  def setup(self):
    self.mapped = Mapping(self.width, self.mapping, self.num_classes)
    self.synthesis = Synthesis(self.shape, self.channels, self.output)
    self.mean = self.variable("latent_stats", "mean", jnp.zeros, (self.width,))

  @property
  def num_styles(self) -> int:
    """S: one w for each convolution, and one for the last image layer; the other ones share that of the layer after them."""
    return 2 * len(self.channels)

  def __call__(self, z, train: bool, label=None, *, key=None, psi: float = 1.0):
    style_key, noise_key = jax.random.split(self.make_rng("dropout") if key is None else key)
    styles = self.truncate(self.styles(style_key, z, train, label), psi)
    return self.synthesis(styles, noise_key)

  def styles(self, key, z, train: bool, label=None):
    """Latents z [B, Z] -> w for every layer [B, S, width], mixed in training."""
    w = self.map(z, train, label)
    if not train or self.mixing == 0:
      return self.mix(w, w, self.num_styles)
    latent_key, layer_key, choice_key = jax.random.split(key, 3)
    other = self.map(random.normal(latent_key, len(z), z.shape[1:]), False, label)
    crossover = random.randint(layer_key, len(z), (), 1, self.num_styles)
    mixed = random.bernoulli(choice_key, jnp.full(len(z), self.mixing))
    return self.mix(w, other, jnp.where(mixed, crossover, self.num_styles))

  def map(self, z, train: bool, label=None):
    """z [B, Z] -> w [B, width]; training moves the running mean towards the global batch's."""
    w = self.mapped(z, label)
    if train and not self.is_initializing():
      self.mean.value += (1 - self.momentum) * (rows.batch_mean(jax.lax.stop_gradient(w)) - self.mean.value)
    return w

  def mix(self, w, other, crossover):
    """w [B, width] for the layers before `crossover` (an int, or int32 [B]), `other` from there on: [B, S, width]."""
    first = jnp.arange(self.num_styles)[None] < jnp.broadcast_to(crossover, len(w))[:, None]
    return jnp.where(first[..., None], w[:, None], other[:, None])

  def truncate(self, w, psi: float):
    """w [..., width] drawn towards the mean one: psi = 1 leaves it, psi = 0 leaves the mean image alone."""
    mean = self.mean.value.reshape((1,) * (w.ndim - 1) + (-1,))
    return psi * w + (1 - psi) * mean

  def synthesize(self, styles, key):
    """Styles [B, S, width] and the key of the noise -> images [B, *shape]; differentiable in the styles."""
    return self.synthesis(styles, key)

  def path_lengths(self, key, z, train: bool, label=None):
    """|J' y| [B], how far w moves the image: J = d image / d w, y noise of deviation 1 / sqrt(H W) (section 3.2).

    Squared norms are averaged over the layers that w enters.  The paper's regulariser draws |J' y| towards its running mean.
    """
    style_key, noise_key, direction_key = jax.random.split(key, 3)
    styles = self.styles(style_key, z, train, label)
    if self.is_initializing():
      self.synthesis(styles, noise_key)  # outside of the gradient: parameters are made by an ordinary call
    direction = random.normal(direction_key, len(z), self.shape) / math.sqrt(self.shape[0] * self.shape[1])
    slopes = jax.grad(lambda styles: (self.synthesis(styles, noise_key) * direction).sum())(styles)
    return jnp.sqrt(jnp.square(slopes).sum(-1).mean(-1) + 1e-12)


class Mapping(nn.Module):
  """z [B, Z] -> w [B, width]."""

  width: int
  layers: int
  num_classes: int

  @nn.compact
  def __call__(self, z, label):
    if (label is None) != (self.num_classes == 0):
      raise UserError(f"this generator was built for {self.num_classes} classes; give it labels if and only if there are any")
    h = pixel_norm(z)
    if label is not None:
      told = EqualDense(z.shape[-1], gain=1.0)(jax.nn.one_hot(label, self.num_classes) * math.sqrt(self.num_classes))
      h = jnp.concatenate([h, pixel_norm(told)], -1)
    for _ in range(self.layers):
      h = leaky(EqualDense(self.width, pace=0.01)(h))
    return h


class Synthesis(nn.Module):
  """Styles [B, S, width] and the key of the noise -> images [B, *shape]."""

  shape: tuple[int, int, int]
  channels: Sequence[int]
  output: Callable

  @nn.compact
  def __call__(self, styles, key):
    *size, colours = self.shape
    last = len(self.channels) - 1
    if any(side % (1 << last) for side in size):
      raise UserError(f"{last} doublings make an image whose sides {1 << last} divides; got {size[0]} x {size[1]}")
    # Style 0 is the first convolution's; a level's two are 2 l - 1 and 2 l, and its image layer's is 2 l + 1.
    noise = lambda layer: jax.random.fold_in(key, layer)
    start = (size[0] >> last, size[1] >> last, self.channels[0])
    constant = self.param("constant", nn.initializers.normal(1), start)
    h = jnp.broadcast_to(constant[None], (len(styles), *start))
    h = StyledConv(self.channels[0])(h, styles[:, 0], noise(0))
    image = ToImage(colours)(h, styles[:, 1])
    for level, channels in enumerate(self.channels[1:], 1):
      h = StyledConv(channels, upsampled=True)(h, styles[:, 2 * level - 1], noise(2 * level - 1))
      h = StyledConv(channels)(h, styles[:, 2 * level], noise(2 * level))
      image = upsample(image) + ToImage(colours)(h, styles[:, 2 * level + 1])
    return self.output(image)


class StyledConv(nn.Module):
  """x [B, H, W, C], w [B, width] -> [B, H, W, features], of twice the height and width if `upsampled`."""

  features: int
  upsampled: bool = False

  @nn.compact
  def __call__(self, x, w, key):
    x = upsample(x) if self.upsampled else x
    style = EqualDense(x.shape[-1], gain=1.0, bias=1.0)(w)
    kernel = self.param("kernel", nn.initializers.normal(1), (3, 3, x.shape[-1], self.features))
    y = modulated(x, he(kernel, 1.0), style)
    strength = self.param("noise", nn.initializers.zeros_init(), ())
    y += strength * random.normal(key, len(y), (*y.shape[1:3], 1))
    return HE * leaky(y + self.param("bias", nn.initializers.zeros_init(), (self.features,))[None, None, None])


class ToImage(nn.Module):
  """x [B, H, W, C], w [B, width] -> [B, H, W, colours]: not demodulated, so that w decides on contrast."""

  colours: int

  @nn.compact
  def __call__(self, x, w):
    style = EqualDense(x.shape[-1], gain=1.0, bias=1.0)(w)
    kernel = self.param("kernel", nn.initializers.normal(1), (1, 1, x.shape[-1], self.colours))
    bias = self.param("bias", nn.initializers.zeros_init(), (self.colours,))
    return modulated(x, he(kernel, 1.0), style, demodulate=False) + bias[None, None, None]


def modulated(x, kernel, style, demodulate: bool = True):
  """x [B, H, W, I] convolved with kernel [h, w, I, O] times style [B, I]: an own kernel for each example (section 2.2).

  With `demodulate`, that kernel is divided by its norm over all but O.
  """
  y = convolve(x * style[:, None, None], kernel, (1, 1), "SAME")
  if not demodulate:
    return y
  power = jnp.matmul(jnp.square(style), jnp.square(kernel).sum((0, 1)), precision="highest")  # [B, O]
  return y * jax.lax.rsqrt(power + 1e-8)[:, None, None]


class Discriminator(Critic):
  """x [B, H, W, C] -> logits [B]: residual blocks, the last level comparing the images of a batch (`group` at a time)."""

  channels: Sequence[int] = (64, 64, 32)  # of each level, from the coarsest
  group: int | None = 4

  @nn.compact
  def judge(self, x, train: bool):
    del train
    below, *_ = self.channels
    h = leaky(EqualConv(self.channels[-1], 1)(x))
    for features in reversed(self.channels[:-1]):
      inner = leaky(EqualConv(h.shape[-1], 3)(h))
      # The filter comes first: what a stride skips would come back as waves.
      inner = leaky(EqualConv(features, 3, stride=2, padding="VALID")(_blurred(inner, 2, 2)))
      h = (inner + EqualConv(features, 1, gain=1.0, use_bias=False)(downsample(h))) / math.sqrt(2)
    h = leaky(EqualConv(below, 3)(append_deviation(h, self.group)))
    features = leaky(EqualDense(below)(h.reshape(len(h), -1)))
    return EqualDense(1, gain=1.0)(features)[:, 0], features


# Resampling with the filter [1, 3, 3, 1] along each axis, beyond the border zeros: sums of shifted images.


def upsample(x):
  """[B, H, W, C] -> [B, 2 H, 2 W, C]."""
  for axis in (1, 2):
    before, after = _shifted(x, axis, 1), _shifted(x, axis, -1)
    pairs = jnp.stack([3 * x + before, 3 * x + after], axis + 1) / 4
    x = pairs.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
  return x


def downsample(x):
  """[B, 2 H, 2 W, C] -> [B, H, W, C]."""
  return _blurred(x, 1, 1)[:, ::2, ::2]


def _shifted(x, axis: int, by: int):
  """x moved `by` = 1 or -1 pixels along the axis, zeros coming in."""
  padding = [(0, 0)] * x.ndim
  padding[axis] = (1, 0) if by > 0 else (0, 1)
  keep = slice(0, -1) if by > 0 else slice(1, None)
  return jnp.pad(x, padding)[(slice(None),) * axis + (keep,)]


def _blurred(x, low: int, high: int):
  """x [B, H, W, C] with `low` and `high` zeros on the sides of both axes, filtered: 3 pixels fewer than that."""
  x = jnp.pad(x, ((0, 0), (low, high), (low, high), (0, 0)))
  for axis in (1, 2):
    size = x.shape[axis] - 3
    a, b, c, d = (jax.lax.slice_in_dim(x, start, start + size, axis=axis) for start in range(4))
    x = (a + 3 * b + 3 * c + d) / 8
  return x
