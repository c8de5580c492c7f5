"""What the tests of networks share."""

import jax
import jax.numpy as jnp
import numpy as np


def noisy(init, *arguments, size=0.3):
  """Variables of the shapes that `init(key, *arguments)` gives, of deviation `size`, scales and variances about 1.

  No layer that starts at zero hides what lies behind it, and nothing needs to be compiled to get them.
  """
  rng = np.random.default_rng(7)

  def draw(path, leaf):
    centre = path[-1].key in ("scale", "var")
    return jnp.asarray(centre + size * rng.uniform(-1.7, 1.7, leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(lambda: init(jax.random.key(1), *arguments)))


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
