"""Editing against Gaussians: inversion is the flow backwards, mixing keeps the noise, and what strengths forget is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.score import grids, noise, solvers
from gm_jax.tasks import editing
from tests.score import gaussian

MEAN, STD = 0.4, 0.6
GRID = grids.in_log_snr(9.0, -9.0, 24)
RNG = np.random.default_rng(0)
FIRST, SECOND = (jnp.asarray(MEAN + STD * RNG.normal(size=(3, 4, 4, 1)), jnp.float32) for _ in range(2))
KEY = jax.random.key(0)


def whole(x, log_snr, label=None):
  """A denoiser that takes what it sees for the image: one step to +inf then shows where it began."""
  del log_snr, label
  return x


def test_inversion_follows_the_flow_to_noise_with_first_order():
  x_0, errors, counts = np.array([-1.0, 0.2, 1.7]), [], (32, 64, 128, 256)
  for count in counts:
    grid = grids.in_log_snr(12.0, -6.0, count)
    method = editing.backwards(grid)
    assert method.num_evaluations == count - 1
    np.testing.assert_array_equal(method.log_snr, grid[1:-1][::-1])
    found = gaussian.follow(gaussian.denoiser(MEAN, STD), method, noise.alpha(grid[-2]) * x_0)
    start, spread = noise.alpha(grid[0]), np.sqrt(gaussian.variance(grid[0], STD))
    errors.append(np.abs(found - start * MEAN - spread * (x_0 - MEAN) / STD).max())  # what the flow conserves
  assert gaussian.slope(counts, errors) == pytest.approx(1, abs=0.15)
  assert errors[-1] < 0.03


def test_there_and_back_is_the_image_with_first_order():
  denoise, x_0, errors, counts = gaussian.mixture(), np.array([-1.2, -0.5, 0.6, 1.1]), [], (64, 128, 256, 512)
  for count in counts:
    grid = grids.in_log_snr(10.0, -6.0, count)
    latent = gaussian.follow(denoise, editing.backwards(grid), noise.alpha(grid[-2]) * x_0)
    errors.append(np.abs(gaussian.follow(denoise, solvers.DDIM()(grid), latent) - x_0).max())
  assert gaussian.slope(counts, errors) == pytest.approx(1, abs=0.2)


def test_inverting_and_generating_are_these_tables():
  denoise = gaussian.denoiser(MEAN, STD)
  latent = jax.jit(lambda x: editing.invert(denoise, x, grid=GRID))(FIRST)
  x = np.asarray(FIRST, np.float64)
  expected = gaussian.follow(denoise, editing.backwards(GRID), noise.alpha(GRID[-2]) * x)
  np.testing.assert_allclose(latent, expected, atol=1e-4)
  expected = gaussian.follow(denoise, solvers.DDIM()(GRID), expected)
  np.testing.assert_allclose(jax.jit(lambda x: editing.generate(denoise, x, grid=GRID))(latent), expected, atol=1e-4)
  with pytest.raises(UserError, match="more steps"):
    editing.invert(denoise, FIRST, grid=GRID[-2:])


def test_the_arc_between_two_noises_is_noise():
  first, second = (jnp.asarray(RNG.normal(size=(400, 64)), jnp.float32) for _ in range(2))
  np.testing.assert_array_equal(editing.slerp(first, second, 0.0), first)
  np.testing.assert_allclose(editing.slerp(first, second, 1.0), second, atol=1e-6)
  for weight in (0.1, 0.5, 0.8):
    found = editing.slerp(first, second, weight)
    assert abs(float((found**2).mean()) - 1) < 4 * np.sqrt(2 / first.size) + 1 / 64  # its square is not quite chi-squared
    alike = second * jnp.linalg.norm(first, axis=1, keepdims=True) / jnp.linalg.norm(second, axis=1, keepdims=True)
    lengths = jnp.linalg.norm(editing.slerp(first, alike, weight), axis=1)
    np.testing.assert_allclose(lengths, jnp.linalg.norm(first, axis=1), rtol=1e-4)
  np.testing.assert_allclose(editing.slerp(first, first, 0.3), first, rtol=1e-4)
  assert not editing.slerp(0 * first, 0 * first, 0.3).any()


def test_interpolation_ends_on_the_reconstructions_and_is_the_same_from_both_sides():
  denoise = gaussian.mixture()
  mix = jax.jit(lambda first, second, weights: editing.interpolate(denoise, first, second, weights, grid=GRID))
  rebuilt = jax.jit(lambda x: editing.generate(denoise, editing.invert(denoise, x, grid=GRID), grid=GRID))
  weights = np.array([0.0, 0.3, 1.0])
  found = mix(FIRST, SECOND, weights)
  for at, x_0 in ((0, FIRST), (2, SECOND)):
    np.testing.assert_allclose(found[at], rebuilt(x_0), atol=2e-5)
  np.testing.assert_allclose(mix(SECOND, FIRST, 1 - weights), found, atol=2e-4)
  assert np.abs(found[1] - found[0]).max() > 0.05


def test_a_strength_is_a_share_of_the_steps():
  np.testing.assert_array_equal(editing.tail(GRID, 1.0), GRID)
  for strength, count in ((0.5, 12), (0.25, 6), (0.26, 7), (1e-6, 1)):
    np.testing.assert_array_equal(editing.tail(GRID, strength), GRID[-1 - count :])
  for strength in (0.0, 1.1, -0.5, np.nan):
    with pytest.raises(UserError, match="strength"):
      editing.tail(GRID, strength)


def test_no_strength_is_the_image_itself_and_all_of_it_hardly_remembers():
  denoise = gaussian.denoiser(MEAN, STD)
  assert editing.image_to_image(denoise, FIRST, KEY, grid=GRID, strength=0) is FIRST
  edit = jax.jit(lambda x: editing.image_to_image(denoise, x, KEY, grid=GRID, strength=1.0))
  np.testing.assert_allclose(edit(FIRST), edit(-FIRST), atol=0.05)
  np.testing.assert_allclose(edit(FIRST)[:2], edit(FIRST[:2]), atol=1e-5)  # image i by its own index


@pytest.mark.parametrize("solver", [solvers.Ancestral(), solvers.DDIM(0.3)], ids=["ancestral", "ddim"])
@pytest.mark.parametrize("strength", [0.3, 0.6])
def test_what_an_edited_image_is_drawn_from(solver, strength):
  """Of an image c, with noise to level t: N(alpha c, sigma^2), and what the solver's table makes of that, exactly."""
  sketch, num = 1.5, 20_000
  method = solver(editing.tail(GRID, strength))
  level = method.log_snr[0]
  start = noise.alpha(level) * sketch, noise.sigma(level) ** 2
  mean, variance = gaussian.moments(method, MEAN, STD, start)[:, -1]
  denoise = gaussian.denoiser(MEAN, STD)
  edit = lambda x: editing.image_to_image(denoise, x, KEY, grid=GRID, strength=strength, solver=solver)
  found = np.asarray(jax.jit(edit)(jnp.full((20, num // 20), sketch)), np.float64)
  assert abs(found.mean() - mean) < 4.5 * np.sqrt(variance / num)
  assert abs(found.var() / variance - 1) < 4.5 * np.sqrt(2 / num)
  assert abs(mean - MEAN) > 0.04  # it does remember


@pytest.mark.parametrize("same_noise", [True, False])
def test_mixed_images_have_the_noise_that_the_denoiser_is_told(same_noise):
  grid, weights = np.array([0.5, np.inf]), np.array([0.0, 0.3, 0.5, 1.0])
  first, second = jnp.full((40, 100), 1.0), jnp.full((40, 100), -2.0)
  blend = lambda key: editing.blend(whole, first, second, weights, key, grid=grid, strength=1.0, same_noise=same_noise)
  for weight, start in zip(weights, np.asarray(jax.jit(blend)(KEY), np.float64)):
    eps = (start - noise.alpha(grid[0]) * ((1 - weight) * 1.0 - weight * 2.0)) / noise.sigma(grid[0])
    assert abs(eps.mean()) < 4.5 / np.sqrt(eps.size)
    assert abs(eps.var() - 1) < 4.5 * np.sqrt(2 / eps.size) + 0.01


def test_mixing_ends_on_the_edited_images():
  denoise = gaussian.mixture()
  options = dict(grid=GRID, strength=0.5)
  found = jax.jit(lambda: editing.blend(denoise, FIRST, SECOND, [0.0, 1.0], KEY, **options))()
  for at, x_0 in enumerate((FIRST, SECOND)):
    edited = jax.jit(lambda x: editing.image_to_image(denoise, x, KEY, **options))(x_0)
    np.testing.assert_allclose(found[at], edited, atol=2e-5)
  other = jax.jit(lambda: editing.blend(denoise, FIRST, SECOND, [0.0, 1.0], KEY, same_noise=False, **options))()
  np.testing.assert_allclose(other[0], found[0], atol=2e-5)
  assert np.abs(other[1] - found[1]).max() > 0.05


def test_a_label_and_guidance_reach_the_denoiser():
  """The guided denoiser is what edits: the label's own image is what a point mass leads to."""
  point = lambda x, log_snr, label: jnp.broadcast_to(label.astype(x.dtype).reshape(-1, 1, 1, 1), x.shape)
  doubled = lambda denoise: lambda x, log_snr, label=None: 2 * denoise(x, log_snr, label)
  told = dict(grid=GRID, label=jnp.array([3, 1, 4]))
  expected = jnp.broadcast_to(2.0 * told["label"].reshape(3, 1, 1, 1), FIRST.shape)
  tasks = (
    lambda denoise: editing.image_to_image(denoise, FIRST, KEY, strength=0.5, **told),
    lambda denoise: editing.generate(denoise, FIRST, **told),
    lambda denoise: editing.interpolate(denoise, FIRST, SECOND, [0.5], **told)[0],
    lambda denoise: editing.blend(denoise, FIRST, SECOND, [0.5], KEY, strength=0.5, **told)[0],
  )
  for task in tasks:
    np.testing.assert_allclose(task(doubled(point)), expected, rtol=1e-5)
