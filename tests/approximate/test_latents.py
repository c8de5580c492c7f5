"""Paths through latent space: where they begin and end, and what they keep."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.approximate import latents

A, B = (jnp.asarray(z, jnp.float32) for z in np.random.default_rng(0).normal(size=(2, 5)))


@pytest.mark.parametrize("path", [latents.straight, latents.around])
def test_paths_have_their_ends(path):
  z = path(A, B, 7)
  np.testing.assert_allclose(z[jnp.array([0, -1])], jnp.stack([A, B]), atol=1e-5)
  np.testing.assert_allclose(path(B, A, 7)[::-1], z, atol=1e-5)


def test_straight_steps_are_equal():
  np.testing.assert_allclose(np.diff(latents.straight(A, B, 5), axis=0), np.tile((B - A) / 4, (4, 1)), atol=1e-6)


def test_an_arc_keeps_the_length_and_turns_evenly():
  start, end = A, B * jnp.linalg.norm(A) / jnp.linalg.norm(B)
  z = np.asarray(latents.around(start, end, 6), np.float64)
  np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.linalg.norm(A), rtol=1e-5)
  cosines = (z[1:] * z[:-1]).sum(1) / np.linalg.norm(A) ** 2
  np.testing.assert_allclose(cosines, cosines[0], rtol=1e-4)
  assert np.linalg.matrix_rank(z, tol=1e-4) == 2  # in the plane of its ends


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, 0.0])
def test_an_arc_without_a_plane_is_straight(factor):
  np.testing.assert_allclose(latents.around(A, factor * A, 5), latents.straight(A, factor * A, 5), atol=1e-5)


def test_a_walk_changes_one_latent():
  z = latents.walk(A, 3, [-1.0, 0.5, 2.0])
  np.testing.assert_array_equal(z[:, 3], [-1.0, 0.5, 2.0])
  others = np.delete(np.arange(5), 3)
  np.testing.assert_array_equal(z[:, others], np.tile(A[others], (3, 1)))


def test_an_attribute_is_what_takes_one_group_to_the_other():
  rng = np.random.default_rng(1)
  without, shift = rng.normal(size=(30, 5)), rng.normal(size=5)
  direction = latents.attribute(jnp.asarray(without + shift), jnp.asarray(without))
  np.testing.assert_allclose(direction, shift, atol=1e-5)
  moved = latents.added(A, direction, [0.0, 1.0, -2.0])
  np.testing.assert_allclose(moved, [A, A + shift, A - 2 * shift], atol=1e-5)


def test_a_plane_has_one_point_for_each_share_of_the_mass():
  num = 6
  z = np.asarray(latents.plane(num), np.float64).reshape(num, num, 2)
  np.testing.assert_allclose(stats.norm.cdf(z[..., 0]) * num - 0.5, np.tile(np.arange(num), (num, 1)), atol=1e-4)
  np.testing.assert_allclose(stats.norm.cdf(z[..., 1]) * num - 0.5, np.tile(np.arange(num)[::-1, None], (1, num)), atol=1e-4)
