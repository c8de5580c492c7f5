"""Tests that cannot fail are worth nothing: a model that breaks a promise is told which."""

import functools

import jax
import jax.numpy as jnp
import pytest

from gm_jax import rows, testing
from tests import models

MEMBER = models.MEMBERS["gaussian"]


@functools.cache
def sound():
  """(a model that keeps all promises, a batch)."""
  return MEMBER.make(), MEMBER.batch(0)


def changed(tree, change):
  """The tree with its first float array changed."""
  leaves, structure = jax.tree.flatten(tree)
  index = next(i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating))
  return jax.tree.unflatten(structure, [change(leaf) if i == index else leaf for i, leaf in enumerate(leaves)])


def broken(**functions):
  """The sound model with some of its functions replaced, each by one of its old self and of its arguments."""
  model = sound()[0]
  bound = {name: functools.partial(function, getattr(model, name)) for name, function in functions.items()}
  return model._replace(**bound)


def another_dtype(step, key, state, batch):
  state, metrics = step(key, state, batch)
  return changed(state, lambda leaf: leaf.astype(jnp.float16)), metrics


def another_tree(step, key, state, batch):
  return step(key, state, batch)[0], {"loss": jnp.zeros(3)}


def weak(step, key, state, batch):
  """What a Python number times nothing but Python numbers leaves: a float32 that gives way to any other type."""
  state, metrics = step(key, state, batch)
  return changed(state, lambda leaf: jnp.broadcast_to(jnp.asarray(0.5), leaf.shape)), metrics


def not_finite(evaluate, key, state, batch):
  return {name: values / 0 for name, values in evaluate(key, state, batch).items()}


def of_the_whole_batch(evaluate, key, state, batch):
  return {name: values.mean() for name, values in evaluate(key, state, batch).items()}


def known_by_number(sample, key, state, num, condition=None):
  """Every image depends on how many there are."""
  del condition
  return jax.random.randint(jax.random.fold_in(key, num), (num, 8, 8, 1), 0, 256).astype(jnp.uint8)


def all_alike(sample, key, state, num, condition=None):
  with rows.view(first=0):
    return jnp.repeat(sample(key, state, 1), num, axis=0)


@pytest.mark.parametrize(
  ("functions", "complaint"),
  [
    ({"step": another_dtype}, "float16"),
    ({"step": another_tree}, "not a scalar"),
    ({"step": weak}, "to ~float32"),
    ({"evaluate": not_finite}, "not finite"),
    ({"evaluate": of_the_whole_batch}, "not one number per example"),
    ({"sample": known_by_number}, "depends on the images drawn with it"),
    ({"sample": all_alike}, "all samples are the same"),
  ],
)
def test_a_broken_promise_is_named(functions, complaint):
  with pytest.raises(AssertionError, match=complaint):
    testing.check_contract(broken(**functions), sound()[1], MEMBER.reports)


def test_another_name_is_told():
  with pytest.raises(AssertionError, match="not 'critic'"):
    testing.check_contract(*sound(), "critic")


def test_a_model_that_cannot_learn_is_told():
  still = broken(step=lambda step, key, state, batch: (state, {}))
  with pytest.raises(AssertionError, match="in 2 steps"):
    testing.check_learns(still, sound()[1], MEMBER.reports, 2)
