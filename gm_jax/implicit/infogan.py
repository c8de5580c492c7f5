"""InfoGAN: some of the latents are codes, and the critic's features must tell which codes an image was made from.

    L_I = E log q(c | G(z, c)) + H(c) <= I(c; G(z, c))         equal where the recogniser q is the posterior of c
    critic     what the game says - weight L_I                 q shares its trunk and its optimiser
    generator  what the game says - weight L_I                 so the codes are not ignored

    remedies = (infogan.informative(categories=(10,), numbers=2),)
    model = gan.gan(generator, critic, games.non_saturating(), ..., num_latents=62, remedies=remedies)

Codes are categories, all equally likely, and numbers, uniform in [-1, 1]: H(c) is log K for one of K categories and log 2 for a
number, whose q is a normal law with a mean and a deviation of its own for each image.  L_I of categories is at most H(c); of
numbers it has no upper end, as a number may be told to any digit.

The codes are those that the fakes were made from; labels of data have no part in it.

Chen et al. 2016 (https://arxiv.org/abs/1606.03657), section 5.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import jax
import jax.numpy as jnp

from gm_jax import images
from gm_jax.distributions import categorical_log_prob, normal_log_prob
from gm_jax.implicit import latents
from gm_jax.implicit.gan import GAN, State
from gm_jax.networks.infogan import Codes, InfoCritic


def information(believed: Codes, z) -> tuple[jax.Array, jax.Array]:
  """log q(c | x) + H(c) in nats, [B] of all categories and [B] of all numbers: their means are bounds on I(c; x).

  Args:
    believed: what q says of the codes of x.
    z: latents [B, Z] behind x, codes last: a one-hot vector for each category, then the numbers.
  """
  sizes, num_numbers = [logits.shape[-1] for logits in believed.logits], believed.mean.shape[-1]
  codes = z[:, z.shape[-1] - sum(sizes) - num_numbers :]
  *one_hot, numbers = jnp.split(codes, list(accumulate(sizes)), -1)
  of_categories = jnp.zeros(len(z))
  for logits, code in zip(believed.logits, one_hot):
    of_categories += categorical_log_prob(logits, code.argmax(-1)) + math.log(logits.shape[-1])
  return of_categories, normal_log_prob(numbers, believed.mean, 2 * believed.log_std) + num_numbers * math.log(2)


def informative(
  categories: Sequence[int] = (10,),
  numbers: int = 2,
  *,
  weight: float = 1.0,
  numbers_weight: float = 0.1,
  hidden: int = 128,
) -> Callable[[GAN], GAN]:
  """A function from GAN to GAN, whose latents then have codes behind them, and whose critic a recogniser.

  Training and `evaluate` report "information", L_I in nats, and its parts "information_categories" and "information_numbers".
  It comes after remedies that give the critic another form or other latents, and goes with all but packs.

  Args:
    categories: how many values each categorical code has.
    numbers: how many continuous codes there are.
    weight, numbers_weight: of L_I, the paper's lambda: smaller for numbers, whose information has no upper end.
    hidden: units of the recogniser's own layer.
  """
  if not (categories or numbers) or min((*categories, 2)) < 2 or min(numbers, weight, numbers_weight) < 0:
    codes = f"categories {tuple(categories)}, {numbers} numbers, weights {weight} and {numbers_weight}"
    raise ValueError(f"{codes}; take a code at least, of 2 values at least if it is a category, and no weight below 0")

  def remedy(gan: GAN) -> GAN:
    _refuse_codes(gan)
    law = coded(gan.law, categories, numbers)

    def both(gan, play, critic, fake, z, train, *condition, **told):
      _check_still_informative(gan, law, fake, z)
      listening = _Listening(critic, fake)
      losses, reports = play(listening)
      of_categories, of_numbers = information(listening.heard(train, *condition, **told), z)
      parts = {"information_categories": of_categories, "information_numbers": of_numbers}
      losses -= weight * of_categories + numbers_weight * of_numbers
      return losses, {**reports, "information": of_categories + of_numbers, **parts}

    return gan._replace(critic=InfoCritic(gan.critic, tuple(categories), numbers, hidden), law=law, both=both)

  return remedy


class _Listening:
  """The critic as a game sees it; what it reads of the fakes is heard in the pass in which it judges them."""

  def __init__(self, critic: InfoCritic, fake):
    self._critic, self._fake, self._codes = critic, fake, None

  def __call__(self, x, train: bool, *condition, **told):
    if x is not self._fake:
      return self._critic(x, train, *condition, **told)
    logits, self._codes = self._critic.judge_and_recognise(x, train, *condition, **told)
    return logits

  def heard(self, train: bool, *condition, **told) -> Codes:
    """The codes; in a pass of its own where the game never asked what the critic makes of the fakes."""
    if self._codes is None:
      return self._critic.recognise(self._fake, train, *condition, **told)
    return self._codes

  def __getattr__(self, name: str):
    return getattr(self._critic, name)


def _refuse_codes(gan: GAN) -> None:
  if gan.both is not None:
    raise ValueError("this GAN has codes already; give all of them at once")
  if gan.num_classes is not None:
    raise ValueError(f"the critic reads codes off images alone, and this one is told {gan.num_classes} labels as well")
  if not hasattr(gan.critic, "features"):
    raise ValueError(f"codes need a critic with a method features(x, train) -> [B, F]; {type(gan.critic).__name__} has none")


def _check_still_informative(gan: GAN, law: Callable, fake, z) -> None:
  """What later remedies may have changed."""
  if not hasattr(gan.critic, "judge_and_recognise"):
    raise ValueError(f"{type(gan.critic).__name__} hides the recogniser of codes; give `informative` after that remedy")
  if gan.law is not law:
    raise ValueError("these latents have no codes behind them; give `informative` after the remedy that chose them")
  if len(fake) != len(z):
    raise ValueError(f"{len(fake)} packs of {len(z)} images: codes are read off one image at a time; leave out packing")


# Latents with codes, and images of them.


def coded(law: Callable, categories: Sequence[int] = (10,), numbers: int = 2) -> Callable:
  """The law of z with codes behind it."""
  return latents.beside(law, *map(latents.categorical, categories), latents.uniform(numbers))


def with_codes(noise, labels, numbers, categories: Sequence[int] = (10,)):
  """z [N, Z] of one's choice: noise [N, ...], labels int [N, len(categories)] and numbers [N, ...] in [-1, 1]."""
  one_hot = [jax.nn.one_hot(labels[:, index], size) for index, size in enumerate(categories)]
  return jnp.concatenate([noise, *one_hot, numbers], -1)


def drawn(generator, state: State, z, pixels: images.Pixels = images.SYMMETRIC):
  """Images [N, H, W, C] of latents [N, Z], by the average that samples come from."""
  return pixels.write(generator.apply(state.average.variables, z, train=False))
