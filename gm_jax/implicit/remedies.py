"""Remedies for games that collapse or go round in circles: functions from GAN to GAN, which compose.

    model = gan.gan(..., remedies=(remedies.two_learning_rates(4.0), remedies.packing(2), remedies.unrolled(5)))

Any subset goes together, with any game, in any order; only the weights of minibatch discrimination's layer are normalised
spectrally if that comes after it, and not if it comes before.  Given twice, packs are packs of packs, noises and pulls to the
past add up, rates multiply, layers lie over each other, and of the others the last one holds.

Refused, at construction or when the model is first traced: feature matching and minibatch discrimination with a critic that has
no features; packs that do not go into the batch; a critic with BatchNorm under a penalty on slopes (gan.py).

Clipped weights and penalties are games (games.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import random
from gm_jax.core import global_mean, run
from gm_jax.implicit.gan import GAN
from gm_jax.networks.minibatch import MinibatchCritic
from gm_jax.networks.spectral import SpectralNorm

Remedy = Callable[[GAN], GAN]


# How fast and how often.


def two_learning_rates(critic: float = 1.0, generator: float = 1.0) -> Remedy:
  """Each player's steps are so many times what its optimiser says (Heusel et al. 2017: the critic faster)."""

  def remedy(gan: GAN) -> GAN:
    faster = lambda optimizer, factor: optax.chain(optimizer, optax.scale(factor))
    return gan._replace(
      critic_optimizer=faster(gan.critic_optimizer, critic), generator_optimizer=faster(gan.generator_optimizer, generator)
    )

  return remedy


def alternation(n_critic: int = 1, n_generator: int = 1) -> Remedy:
  """`n_critic` steps of the critic to `n_generator` of the generator; a step of the model is one of the critic."""
  if n_critic < 1 or n_generator < 1:
    raise ValueError(f"{n_critic} steps of the critic to {n_generator} of the generator; both are at least 1")
  return lambda gan: gan._replace(n_critic=n_critic, n_generator=n_generator)


def unrolled(steps: int) -> Remedy:
  """The generator is judged by the critic as it will be `steps` steps on (Metz et al. 2017, equation 10).

  The generator's gradient goes through these steps, the optimiser's memory included; they are made on the batch in hand, and
  then forgotten.  Adam's square root has no derivative at 0, where a weight of the critic has no gradient: give it an
  `eps_root`, such as 1e-8.
  """
  if steps < 0:
    raise ValueError(f"{steps} steps ahead; take 0 or more")
  return lambda gan: gan._replace(unroll=steps)


def historical_averaging(weight: float) -> Remedy:
  """Both players pay weight |theta - mean of all theta before|^2 (Salimans et al. 2016, section 3.3)."""

  def remedy(gan: GAN) -> GAN:
    remembering = lambda optimizer: optax.chain(towards_history(weight), optimizer)
    return gan._replace(
      critic_optimizer=remembering(gan.critic_optimizer), generator_optimizer=remembering(gan.generator_optimizer)
    )

  return remedy


class History(NamedTuple):
  """Memory of `towards_history`."""

  mean: Any  # of the parameters before each update so far
  updates: jax.Array  # int32 []


def towards_history(weight: float) -> optax.GradientTransformation:
  """Adds to gradients that of weight |theta - mean|^2, where the mean is of the parameters at all updates before this one."""

  def init(params):
    return History(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

  def update(grads, history, params):
    pull = jnp.where(history.updates > 0, 2 * weight, 0.0)
    grads = jax.tree.map(lambda grad, now, mean: grad + (pull * (now - mean)).astype(grad.dtype), grads, params, history.mean)
    share = 1 / (history.updates + 1)
    mean = jax.tree.map(lambda mean, now: mean + (share * (now - mean)).astype(mean.dtype), history.mean, params)
    return grads, History(mean, history.updates + 1)

  return optax.GradientTransformation(init, update)


# What the critic sees.


def packing(num: int) -> Remedy:
  """The critic judges packs of `num` images, all real or all fake, one behind another in its channels (Lin et al. 2018).

  A pack is one input to all else: to penalties, to noise, to features.  Labels come as int [B / num, num].  An evaluated image
  is judged in a pack with the next ones of its batch.
  """
  if num < 1:
    raise ValueError(f"packs of {num} images; take 1 or more")

  def view(key, turn, train, x, *condition):
    del key, turn
    stack = (lambda rows: _in_packs(rows, num)) if train else (lambda rows: _with_next(rows, num))
    return _in_channels(stack(x)), *map(stack, condition)

  # One image is a pack as it is, and its label needs no further axis.
  return lambda gan: gan if num == 1 else gan._replace(views=(*gan.views, view))


def _in_packs(rows, num: int):
  """[B, ...] -> [B / num, num, ...]."""
  if len(rows) % num:
    raise ValueError(f"{len(rows)} images on a device cannot be cut into packs of {num}; take a multiple of {num}")
  return rows.reshape(len(rows) // num, num, *rows.shape[1:])


def _with_next(rows, num: int):
  """[B, ...] -> [B, num, ...]: each row with those after it, and the first ones after the last."""
  return jnp.stack([jnp.roll(rows, -ahead, 0) for ahead in range(num)], 1)


def _in_channels(packs):
  """[P, num, H, W, C] -> [P, H, W, num * C]."""
  packs = jnp.moveaxis(packs, 1, -2)
  return packs.reshape(*packs.shape[:-2], -1)


def instance_noise(std: float | Callable) -> Remedy:
  """The critic sees data and fakes through the same normal noise, so that they overlap (Sonderby et al. 2017).

  Args:
    std: of the noise, a number or a schedule, turn -> number: `optax.linear_schedule(0.5, 0.0, 10_000)`.
  """

  def view(key, turn, train, x, *condition):
    if not train:
      return x, *condition
    level = std(turn) if callable(std) else std
    return x + level * random.normal(key, len(x), x.shape[1:]), *condition

  return lambda gan: gan._replace(views=(*gan.views, view))


def augmentation(change: Callable) -> Remedy:
  """In training the critic sees data and fakes changed at random in ways that should not matter (Zhao et al. 2020).

  The generator is taught through the change, so what it makes is not changed itself; and a code that the critic must recognise
  (infogan.py) cannot lie in what is.

  Args:
    change: `(key, x [B, H, W, C]) -> x`, differentiable in x, as in `reconstruction.corruptions`; x as the players see it.
  """

  def view(key, turn, train, x, *condition):
    del turn
    return change(key, x) if train else x, *condition

  return lambda gan: gan._replace(views=(*gan.views, view))


def minibatch_discrimination(kernels: int = 50, dim: int = 5) -> Remedy:
  """The critic also sees how close its features of an image are to those of the others in the batch, of data alone or of fakes
  alone (Salimans et al. 2016, section 3.2; `networks.minibatch`)."""

  def remedy(gan: GAN) -> GAN:
    _with_features(gan.critic, "minibatch discrimination")
    return gan._replace(critic=MinibatchCritic(gan.critic, kernels, dim))

  return remedy


def spectral_normalization() -> Remedy:
  """The critic's weights are divided by their largest singular values (Miyato et al. 2018; `networks.spectral`)."""
  return lambda gan: gan._replace(critic=SpectralNorm(gan.critic))


# What the generator wants.


def feature_matching(weight: float = 1.0, adversarial: float = 0.0) -> Remedy:
  """The generator minimises weight |E f(x) - E f(g)|^2, f the critic's features (Salimans et al. 2016, section 3.1).

  Args:
    weight: of the squared distance of the two means over the batch, summed over features.
    adversarial: weight of what the game makes it minimise, besides.
  """

  def remedy(gan: GAN) -> GAN:
    _with_features(gan.critic, "feature matching")
    game = gan.game._replace(persuade=None)

    def persuade(critic, real, fake, train, *condition, **told):
      mean = lambda x: global_mean(critic.features(x, train, *condition, **told).mean(0))
      distance = jnp.square(mean(real) - mean(fake)).sum()
      besides = game.generator_losses(critic, real, fake, train, *condition, **told) if adversarial else jnp.zeros(len(fake))
      return weight * distance + adversarial * besides

    return gan._replace(game=game._replace(persuade=persuade))

  return remedy


def _with_features(critic: nn.Module, what: str) -> nn.Module:
  if not hasattr(critic, "features"):
    raise ValueError(f"{what} needs a critic with a method features(x, train, ...) -> [B, F]; {type(critic).__name__} has none")
  return critic


# Where samples come from.


def latents(law: Callable) -> Remedy:
  """z from another law (latents.py) than the normal one."""
  return lambda gan: gan._replace(law=law)


def recomputed_statistics(num: int = 256, passes: int = 1) -> Remedy:
  """Samples are drawn with the BatchNorm statistics that the averaged weights have themselves.

  The average of running statistics belongs to no weights in particular, least of all to averaged ones.  Before samples are
  drawn the averaged generator is run as in training on `num` latents, `passes` times, always the same ones; its statistics are
  the means over passes.  A generator without BatchNorm has nothing to recompute.
  """

  def settle(gan: GAN, variables):
    if "batch_stats" not in variables:
      return variables
    keys = jax.random.split(jax.random.key(0), passes)
    each = jax.lax.map(lambda key: _batch_statistics(gan, key, variables, num), keys)
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf.mean(0), each)}

  return lambda gan: gan._replace(settle=settle)


def _batch_statistics(gan: GAN, key, variables, num: int):
  """The statistics m of one batch, whatever a layer's momentum: from a start a the running ones go to (1 - s) a + s m."""
  latent_key, run_key = jax.random.split(key)
  # Not by rows of the gallery, since they are the same for all of it.
  z = jax.vmap(gan.law)(jax.random.split(latent_key, num))
  condition = () if gan.num_classes is None else (jnp.arange(num) % gan.num_classes,)

  def running(start: float):
    stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), variables["batch_stats"])
    pass_through = lambda generator, key, train: generator(z, train, *condition)
    return run(gan.generator, pass_through, {**variables, "batch_stats": stats}, run_key, train=True)[1]["batch_stats"]

  far = 2.0**20  # so that what is left of the start is read off exactly
  of_batch = lambda from_zero, from_far: from_zero / (1 - ((from_far - from_zero) / far).mean())
  return jax.tree.map(of_batch, running(0.0), running(far))
