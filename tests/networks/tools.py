"""What the tests of networks share."""

import jax
import jax.numpy as jnp
import numpy as np


def noisy(variables, size=0.3):
  """The same variables, moved at random by `size`: no layer that starts at zero hides what lies behind it."""
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  return tree.unflatten([leaf + size * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)])


def assert_equal(ours, theirs, tolerance=1e-5):
  """Leaf by leaf, to `tolerance` of the leaf's largest entry (of one at least)."""

  def check(path, a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()), err_msg=jax.tree_util.keystr(path))

  jax.tree_util.tree_map_with_path(check, ours, theirs)


def assert_rows_are_their_own(function, *arrays, tolerance=1e-5):
  """Row i of the result is a function of row i of the arguments: whole batch against rows one by one."""
  whole = function(*arrays)
  for i in range(len(arrays[0])):
    assert_equal(function(*(array[i : i + 1] for array in arrays)), whole[i : i + 1], tolerance)


def assert_all_used(gradient):
  """No parameter is without effect."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)
