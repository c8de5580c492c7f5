"""Progressive growing: both players begin with small images, and get the next level when they have learnt the last.

    model = gan.gan(generator, critic, games.wgan_gp(), ..., remedies=(progressive.growing(last=2, fade=2000, stay=2000),))

For players that are told their level (`networks.progressive`).  The level is a function of the turn alone, so that it is saved
and resumed with it, and one program goes through all of them (Karras et al. 2018, section 2).
"""

from collections.abc import Callable

import jax.numpy as jnp

from gm_jax.networks.progressive import seen_at


def growing(last: int, fade: int, stay: int) -> Callable:
  """A function from GAN to GAN, whose players then grow from level 0 to `last`.

  Args:
    last: the level of full-size images.
    fade: turns in which a new level comes in, alpha from 0 to 1.
    stay: turns that it then stays alone, as level 0 does at the start.
  """
  if fade < 1 or stay < 0:
    raise ValueError(f"levels that come in for {fade} turns and stay for {stay}; take at least 1 and 0")

  def told(turn):
    level, alpha = level_at(turn, last, fade, stay)
    return {"level": level, "alpha": alpha}

  def shown(turn, x):
    # The fakes fade by themselves: what data show must be what fakes can.
    return seen_at(x, *level_at(turn, last, fade, stay), last)

  return lambda gan: gan._replace(told=told, shown=shown)


def level_at(turn, last: int, fade: int, stay: int):
  """The level, int32 [], and how much of it is in, alpha float32 [], at a turn."""
  since = turn + fade  # as if level 0 had just come in
  level = jnp.minimum(since // (fade + stay), last)
  return level, jnp.clip((since - level * (fade + stay)) / fade, 0.0, 1.0)
