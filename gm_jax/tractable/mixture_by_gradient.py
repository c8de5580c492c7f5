"""Mixtures by gradient ascent: the hill that EM climbs, climbed by any optimiser, in coordinates that know no constraints.

    mean log p(x) + share * sum_k (log w_k + E[log p(made-up example | k)]),    log p(x) = logsumexp_k (log w_k + log p(x | k))

Weights are a softmax of free numbers, covariances come from a free triangular matrix or free log-variances, Bernoullis from
logits.  The gradient of the log-sum-exp is the E-step in disguise: responsibilities times the gradients of the components
(Fisher's identity), so both methods have the same fixed points.  EM needs no learning rate; this is what remains when
components are networks, and their M-step has no closed form.
"""

import flax.linen as nn
import jax
import optax

from gm_jax import core
from gm_jax.tractable import mixture
from gm_jax.tractable.components import Component


class Free(nn.Module):
  """Weights and components as free parameters; "location", [K, H, W, C], is one of them.  They start where EM starts."""

  component: Component
  num_components: int
  share: float

  @nn.compact
  def __call__(self, batch=None):
    """Log-weights [K] and the components' params, as `mixture.fit` gives them; `batch` is looked at in initialisation only."""
    if self.is_initializing():
      start = mixture.mixture(self.component, self.num_components, self.share)
      state = start.init(self.make_rng("params"), batch)
      log_weights, parts = mixture.fit(self.component, state, self.share)
      free = {"weights": log_weights, **self.component.free(parts)}
      free["location"] = free["location"].reshape(state.mean.shape)  # remembers the shape of an image
      for name, value in free.items():
        self.param(name, lambda key, value=value: value)
    return _constrained(self.component, self.variables["params"])

  def image_shape(self):
    return self.variables["params"]["location"].shape[1:]


def by_gradient(
  component: Component,
  num_components: int,
  optimizer: optax.GradientTransformation,
  share: float = 1e-3,
  *,
  decay: float = 0.999,
) -> core.GenerativeModel:
  """A mixture of `num_components`, fitted by gradient ascent; evaluate returns `nll`.

  Args:
    component: the kind, as for `mixture.mixture`.
    num_components: K.
    optimizer: any; a step size that falls to zero is what brings it to the very top.
    share: how much of the data set each component is given in made-up examples; above 0.
    decay: of the average of the parameters.
  """
  read = lambda key, batch: _flat(component.pixels.read(key, batch["image"]))

  def objective(free: Free, key, batch, train: bool):
    params = free(batch)
    nll = mixture.nll(component, params, read(key, batch))  # [B]
    # The prior is the same for every example, and the mean over the batch is taken later.
    return nll - mixture.log_prior(component, params, share) if train else nll, {"nll": nll}

  def sample(free: Free, key, num: int, condition=None):
    del condition
    return mixture.draw(component, free(), key, num, free.image_shape())

  module = Free(component, num_components, share)
  return core.from_objective(module, objective, sample, optimizer, reports="nll", decay=decay)


def fit(component: Component, state: core.State):
  """Log-weights [K] and the components' params, read off the average, as `mixture.fit` does for EM."""
  return _constrained(component, state.average.variables["params"])


def _constrained(component: Component, free):
  parts = component.constrain({**free, "location": _flat(free["location"])})
  return jax.nn.log_softmax(free["weights"]), parts


def _flat(x):
  return x.reshape(len(x), -1)
