"""A prior over codes, seen as a model of images: one state, one run, two stages.

    stage one   the autoencoder learns, its codes uniform
    stage two   priors over its codes learn; the autoencoder stays as it is, to the last bit

    log p(x)  >=  log p(x | codes(x))  +  log p(codes(x))

For a VQ-VAE the priors are autoregressive models whose images are maps of codes (van den Oord et al. 2017, Razavi et al. 2019):
the first level's alone, perhaps given a class, and each further level's given the level before.  How many steps have been taken
is in the state, so one command trains both stages, and a run of any age is resumed, sampled and evaluated like any other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gm_jax import images
from gm_jax.approximate import vqvae
from gm_jax.core import GenerativeModel
from gm_jax.errors import UserError
from gm_jax.networks import code_pixelcnn
from gm_jax.networks.pixelcnn import GatedPixelCNN
from gm_jax.tractable import autoregressive


class State(NamedTuple):
  """The states of the autoencoder and of one prior for each level, and steps taken."""

  first: Any
  priors: tuple
  steps: jax.Array  # int32 []


def two_stage(
  module: vqvae.VQVAE | vqvae.VQVAE2, first: GenerativeModel, priors: Sequence[GenerativeModel], *, first_steps: int
) -> GenerativeModel:
  """A VQ-VAE whose codes have learnt priors; evaluate returns `nll_bound`, `distortion` and `rate`, in nats.

  Of several levels it returns the rate of each as well, `rate_top` and `rate_bottom`.  A step reports the `loss` of its stage
  (of the second, the sum of the priors' nll), the `rate`, and how many codes are in use.

  Args:
    module: the VQ-VAE; `first`: `vqvae.vqvae` of it.
    priors: one model for each level, told first before what hangs on it: see `code_prior`.  Their images are maps of codes,
      uint8 [B, h, w, 1] by `images.from_levels`; the labels of the first are those of the data, of the others the codes of the
      level before, int32 [B, h, w].
    first_steps: steps of stage one; all that follow are of stage two.
  """
  levels = module.levels
  if len(priors) != len(levels):
    raise ValueError(f"{len(priors)} priors for {len(levels)} levels of codes")

  def as_data(codes, batch) -> list[dict]:
    """Each prior's batch."""
    labels = [{"label": batch["label"]} if "label" in batch else {}, *({"label": above} for above in codes)]
    pictures = (images.from_levels(level, spec.num_codes)[..., None] for level, spec in zip(codes, levels))
    return [{"image": picture, **label} for picture, label in zip(pictures, labels)]

  def init(key, batch):
    first_key, code_key, prior_key = jax.random.split(key, 3)
    state = first.init(first_key, batch)
    data = as_data(vqvae.encode(module, code_key, state, batch["image"]), batch)
    states = tuple(prior.init(key, each) for prior, key, each in zip(priors, _keys(prior_key, priors), data))
    return State(state, states, jnp.zeros((), jnp.int32))

  def learn_first(key, state, batch):
    learnt, metrics = first.step(key, state.first, batch)
    names = ["loss", "rate", *vqvae.perplexity_names(levels)]
    return state._replace(first=learnt), {name: metrics[name] for name in names}

  def learn_priors(key, state, batch):
    code_key, prior_key = jax.random.split(key)
    codes = vqvae.encode(module, code_key, state.first, batch["image"])
    keyed = zip(priors, _keys(prior_key, priors), state.priors, as_data(codes, batch))
    learnt, metrics = zip(*(prior.step(key, prior_state, data) for prior, key, prior_state, data in keyed))
    rate = sum(each["loss"] for each in metrics)
    return state._replace(priors=tuple(learnt)), {"loss": rate, "rate": rate, **vqvae.perplexities(levels, codes)}

  def step(key, state, batch):
    second = state.steps >= first_steps
    state, metrics = jax.lax.cond(second, learn_priors, learn_first, key, state, batch)
    return state._replace(steps=state.steps + 1), {**metrics, "stage": 1.0 + second}

  def sample(key, state, num, condition=None):
    codes = ()
    for prior, prior_state, spec, level_key in zip(priors, state.priors, levels, _keys(key, priors)):
      picture = prior.sample(level_key, prior_state, num, codes[-1] if codes else condition)
      codes += (images.to_levels(picture[..., 0], spec.num_codes),)
    return vqvae.decode(module, state.first, codes)

  def evaluate(key, state, batch):
    code_key, prior_key = jax.random.split(key)
    codes, distortion = vqvae.explain(module, code_key, state.first, batch["image"])
    keyed = zip(priors, _keys(prior_key, priors), state.priors, as_data(codes, batch))
    rates = [prior.evaluate(key, prior_state, data)["nll"] for prior, key, prior_state, data in keyed]
    parts = {f"rate_{spec.name}": rate for spec, rate in zip(levels, rates)} if len(levels) > 1 else {}
    rate = sum(rates)
    return {"nll_bound": distortion + rate, "distortion": distortion, "rate": rate, **parts}

  return GenerativeModel(init, step, sample, evaluate)


def code_prior(
  level: vqvae.Level,
  optimizer: optax.GradientTransformation,
  *,
  above: vqvae.Level | None = None,
  num_classes: int = 0,
  features: int = 32,
  blocks: int = 5,
  dropout: float = 0.0,
  decay: float = 0.999,
) -> GenerativeModel:
  """A gated PixelCNN over one level of codes.

  Args:
    level: whose codes; at most 256 of them, which a uint8 can name.
    optimizer: any optax transformation; its schedules count the steps of stage two.
    above: the level, of half the size, that it is told of.
    num_classes: where it is told of the class; samples without labels are of all classes, equally likely.
    features, blocks, dropout: of the network.
    decay: of the average that `sample` and `evaluate` read.
  """
  if not 2 <= level.num_codes <= 256:
    raise UserError(f"a prior over {level.num_codes} codes; take 2 to 256")
  if above and (num_classes or tuple(2 * side for side in above.grid) != tuple(level.grid)):
    raise ValueError(f"a prior over {level.grid} is told of a level of half its size or of a class, not of {above.grid}")
  told = dict(num_classes=num_classes, mapped=above is not None)
  network = GatedPixelCNN(level.num_codes, features=features, blocks=blocks, rate=dropout, positions=True, **told)
  reader = code_pixelcnn.CodeReader(above.num_codes, features) if above else None
  read = lambda pictures: images.to_levels(pictures, level.num_codes)
  return autoregressive.autoregressive(
    code_pixelcnn.CodePixelCNN(network, level.num_codes, reader=reader),
    autoregressive.categorical(level.num_codes)._replace(read=read),
    optimizer,
    (*level.grid, 1),
    scan=code_pixelcnn.cached(),
    num_classes=num_classes or 1,
    decay=decay,
  )


def _keys(key, priors):
  return jax.random.split(key, len(priors))
