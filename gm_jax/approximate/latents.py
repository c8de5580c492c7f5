"""Ways through the latent space of a trained model, such as a VAE: lists of z to decode, [N, Z].

    z = latents.walk(mean[0], 3, jnp.linspace(-3, 3, 9))
    pictures = vae.decode(module, state, z)             # what latent 3 does to this image

Nothing here knows the model: a path is as good as the latents are.
"""

import jax
import jax.numpy as jnp


def straight(start, end, num: int):
  """From z `start` to z `end` [Z] in equal steps, both included: [num, Z]."""
  share = jnp.linspace(0.0, 1.0, num)[:, None]
  return (1 - share) * start[None] + share * end[None]


def around(start, end, num: int):
  """From `start` to `end` along the arc between them, at equal angles, lengths changing evenly: [num, Z].

  In many dimensions nearly all of a standard normal lies near one sphere, and a straight line cuts through its empty inside
  (White 2016, https://arxiv.org/abs/1609.04468).  Opposite ends have no arc of their own: theirs is the straight line.
  """
  share = jnp.linspace(0.0, 1.0, num)[:, None]
  lengths = jnp.linalg.norm(start), jnp.linalg.norm(end)
  angle = jnp.arccos(jnp.clip(start @ end / jnp.maximum(lengths[0] * lengths[1], 1e-12), -1, 1))
  sine = jnp.sin(angle)
  # Ends in one direction have a straight arc anyway, and zero has no direction.
  flat = (jnp.abs(sine) < 1e-4) | (lengths[0] * lengths[1] < 1e-6)
  units = [z / jnp.maximum(length, 1e-12) for z, length in zip((start, end), lengths)]
  parts = [jnp.sin(part * angle) / jnp.where(flat, 1.0, sine) * unit[None] for part, unit in zip((1 - share, share), units)]
  arc = (parts[0] + parts[1]) * ((1 - share) * lengths[0] + share * lengths[1])
  return jnp.where(flat, straight(start, end, num), arc)


def walk(z, latent: int, values):
  """z [Z] with one of its latents set to each of `values` [N]: [N, Z]."""
  values = jnp.asarray(values)
  return jnp.tile(z[None], (len(values), 1)).at[:, latent].set(values)


def attribute(with_it, without_it):
  """The direction of what codes [A, Z] have and codes [B, Z] have not: the difference of their means, [Z]."""
  return with_it.mean(0) - without_it.mean(0)


def added(z, direction, amounts):
  """z [Z] plus so much of a direction [Z] for each of `amounts` [N]: [N, Z]."""
  return z[None] + jnp.asarray(amounts)[:, None] * direction[None]


def plane(num: int):
  """A square of num * num points of two standard normal latents, row by row: each stands for as much of the prior's mass.

  Row 0 has the largest second latent, as in a picture with axes; [num * num, 2] (Kingma & Welling 2014, appendix A).
  """
  quantiles = jax.scipy.special.ndtri((jnp.arange(num) + 0.5) / num)
  across, down = jnp.meshgrid(quantiles, quantiles[::-1])
  return jnp.stack([across.ravel(), down.ravel()], 1)
