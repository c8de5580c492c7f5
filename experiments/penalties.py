"""What is added to a loss to keep weights small, as a link of an optax chain."""

import jax.numpy as jnp
import optax


def lasso(**strengths: float) -> optax.GradientTransformation:
  """Adds the gradient of strength * sum |w|, parameter by parameter: most weights do not matter (Tibshirani 1996).

  To stand in front of the optimiser.  The parameters are a flat dict, as those of a module without submodules are.
  """

  def add(updates, params):
    return {name: grad + strengths.get(name, 0.0) * jnp.sign(params[name]) for name, grad in updates.items()}

  return optax.stateless(add)
