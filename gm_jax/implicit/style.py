"""Style-based generators: what they pay so that a step of w moves the image by the same, wherever and whereto.

    game = games.r1(games.non_saturating(), gamma=1.0, every=16)
    model = gan.gan(generator, critic, game, ..., remedies=(style.path_length(),))

|J' y| is how far a step along y in image space goes in the space of styles, J = d image / d w.  The generator pays
(|J' y| - a)^2, a the running mean of these lengths: at its least, J is a rotation times a, whatever w is (Karras et al. 2020,
section 3.2 and appendix C).  For generators that measure their own paths (`networks.style`).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import DenyList

from gm_jax.core import global_mean
from gm_jax.implicit.gan import GAN


def path_length(weight: float = 2.0, every: int = 4, decay: float = 0.01) -> Callable[[GAN], GAN]:
  """A function from GAN to GAN, whose generator also pays weight (|J' y| - a)^2 for each of a batch of latents of its own.

  Args:
    weight: of the squares.  With y of deviation 1 / sqrt(H W), the same at all sizes.
    every: pay only at each so-many-th step of the generator, and then for all of them (lazily, section 3.1).
    decay: how much of the way to a batch's mean length a goes when the generator pays; it starts at 0.
  """
  if weight < 0 or every < 1 or not 0 <= decay <= 1:
    raise ValueError(f"weight {weight}, every {every}, decay {decay}; take at least 0, at least 1, and 0 to 1")

  def remedy(gan: GAN) -> GAN:
    if not hasattr(gan.generator, "path_lengths"):
      raise ValueError(f"path lengths need a generator with a method path_lengths; {type(gan.generator).__name__} has none")
    memory = f"path_length_{len(gan.pays)}"  # two of them would each have their own

    def pay(generator, key, z, train, *condition, **told):
      mean = generator.get_variable(memory, "mean", jnp.zeros(()))
      steps = generator.get_variable(memory, "steps", jnp.zeros((), jnp.int32))

      def now(mean):
        lengths = _lengths(generator, key, z, train, *condition, **told)
        mean += decay * (jax.lax.stop_gradient(global_mean(lengths.mean())) - mean)
        return every * weight * jnp.square(lengths - mean), mean

      if generator.is_initializing():
        losses = jnp.zeros(len(z))
      else:
        losses, mean = jax.lax.cond(steps % every == 0, now, lambda mean: (jnp.zeros(len(z)), mean), mean)
        steps += 1
      generator.put_variable(memory, "mean", mean)
      generator.put_variable(memory, "steps", steps)
      return losses

    return gan._replace(pays=(*gan.pays, pay))

  return remedy


def _lengths(generator: nn.Module, key, z, train: bool, *condition, **told):
  """|J' y| [B].  What the generator writes on the way is dropped: the running mean of w is of what it makes for the critic."""
  module, variables = generator.unbind()
  mutable = DenyList(("params",))
  return module.apply(variables, key, z, train, *condition, **told, method="path_lengths", mutable=mutable)[0]
