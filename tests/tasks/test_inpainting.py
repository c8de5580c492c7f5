"""Inpainting against Gaussians: RePaint's walk as a list, its steps as numbers, its answers as a posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import images
from gm_jax.errors import UserError
from gm_jax.score import grids, multistep, noise, solvers
from gm_jax.tasks import completion, inpainting
from tests.score import gaussian

GRID = grids.in_log_snr(9.0, -9.0, 20)
KEY = jax.random.key(0)
WALKS = [(250, 10, 10), (20, 3, 4), (20, 1, 2), (7, 6, 3), (5, 10, 1), (1, 1, 1), (2, 1, 5)]


# The walk.


@pytest.mark.parametrize(("num_steps", "jump", "resamples"), WALKS)
def test_the_walk_goes_by_ones_from_noise_to_the_image_and_repeats_what_it_should(num_steps, jump, resamples):
  visited = inpainting.walk(num_steps, jump, resamples)
  moves = np.diff(visited)
  assert (visited[0], visited[-1]) == (0, num_steps)
  assert set(moves) <= {1, -1}
  assert visited.count(num_steps) == 1  # from the image itself nothing jumps
  stops = range(num_steps - 1, jump - 1, -jump) if resamples > 1 else []
  assert (moves == 1).sum() == num_steps + jump * (resamples - 1) * len(stops)
  runs_back = np.split(moves, np.flatnonzero(np.diff(moves)) + 1)
  assert all(len(run) == jump for run in runs_back if run[0] == -1)
  jumped_from = [here for here, move, before in zip(visited[1:-1], moves[1:], moves[:-1]) if (before, move) == (1, -1)]
  assert sorted(jumped_from) == sorted([*stops] * (resamples - 1))
  firsts = [visited.index(level) for level in range(num_steps + 1)]
  assert firsts == sorted(firsts)


@pytest.mark.parametrize(("num_steps", "jump", "resamples"), [(20, 0, 2), (20, 3, 0), (5, 5, 2), (1, 1, 2)])
def test_impossible_walks_are_refused(num_steps, jump, resamples):
  with pytest.raises(UserError):
    inpainting.walk(num_steps, jump, resamples)


@pytest.mark.parametrize("grid", [GRID, np.append(-np.inf, GRID)], ids=["grid", "from nothing"])
def test_jumps_add_the_noise_that_lies_between(grid):
  visited = inpainting.walk(len(grid) - 1, 4, 3)
  table = inpainting.plan(visited, grid, solvers.Ancestral())
  assert len(table.log_snr) == (np.diff(visited) == 1).sum()
  assert all(np.isfinite(column).all() for column in table[:2])
  before = np.append(grid[0], table.after[:-1])
  jumped = before != table.log_snr
  assert jumped.sum() == (np.diff(np.sign(np.diff(visited))) < 0).sum()
  assert (before[jumped] > table.log_snr[jumped]).all()
  # q(x_t | x_s) on top of q(x_s | x_0) is q(x_t | x_0); elsewhere nothing happens.
  np.testing.assert_allclose(table.back * noise.alpha(before), noise.alpha(table.log_snr), rtol=1e-12)
  kept = table.back**2 * noise.sigma(before) ** 2 + table.renewed**2
  np.testing.assert_allclose(kept, noise.sigma(table.log_snr) ** 2, rtol=1e-12)
  assert (table.back[~jumped] == 1).all()
  assert not table.renewed[~jumped].any()
  # And each step is the solver's own.
  method, index = solvers.Ancestral()(grid), np.searchsorted(grid, table.log_snr)
  np.testing.assert_array_equal(np.stack([table.kept, table.guessed], 1), method.weights[index, 0])
  np.testing.assert_array_equal(table.new, method.noise[index, 0])
  np.testing.assert_array_equal(table.after, grid[index + 1])


def test_solvers_with_a_memory_are_refused():
  for solver in (multistep.DPMpp(2), solvers.Heun()):
    with pytest.raises(UserError, match="Ancestral or DDIM"):
      inpainting.plan(inpainting.walk(20, 2, 2), GRID, solver)


# The posterior.

RHO, SEEN = 0.9, 2.0
COVARIANCE = np.array([[1, RHO], [RHO, 1]])


def pair(x, log_snr, label=None):
  """The best guess for two pixels, N(0, COVARIANCE): x [B, 1, 2, 1]."""
  a, s = noise.alpha(log_snr), noise.sigma(log_snr)
  gain = a * COVARIANCE @ (jnp if isinstance(x, jax.Array) else np).linalg.inv(a**2 * COVARIANCE + s**2 * np.eye(2))
  return (gain[None, None] * x.reshape(-1, 1, 1, 2)).sum(-1).reshape(x.shape)


def law(table):
  """Mean and variance of the unknown pixel that `inpaint` draws beside one of value SEEN, exactly."""
  known = lambda log_snr: (noise.alpha(log_snr) * SEEN, noise.sigma(log_snr) ** 2)
  mean, variance = (np.array(pair) for pair in zip(known(table.log_snr[0]), (0.0, 1.0)))
  for back, renewed, log_snr, kept, guessed, new, after in zip(*table):
    mean, variance = back * mean, back**2 * variance + renewed**2
    a, s = noise.alpha(log_snr), noise.sigma(log_snr)
    gain = (a * COVARIANCE @ np.linalg.inv(a**2 * COVARIANCE + s**2 * np.eye(2)))[1]
    row = guessed * gain + kept * np.array([0, 1])
    drawn = row @ mean, row**2 @ variance + new**2
    mean, variance = (np.array(pair) for pair in zip(known(after), drawn))
  return mean[1], variance[1]


@functools.cache
def law_of(num_steps, jump, resamples):
  grid = grids.in_log_snr(9.0, -9.0, num_steps)
  return law(inpainting.plan(inpainting.walk(num_steps, jump, resamples), grid, solvers.Ancestral()))


def test_repaint_tends_to_the_posterior_and_replacement_alone_does_not():
  truth = RHO * SEEN, 1 - RHO**2
  distance = lambda law: np.log(truth[1] / law[1]) / 2 + (law[1] + (law[0] - truth[0]) ** 2) / (2 * truth[1]) - 0.5  # KL
  for jump in (1, 5, 10):
    found = [distance(law_of(100, jump, resamples)) for resamples in (1, 2, 4, 10, 40)]
    assert all(later < earlier for earlier, later in zip(found, found[1:]))
    assert found[0] > 0.8
    assert found[-1] < 0.005
  assert distance(law_of(400, 2, 40)) < distance(law_of(100, 2, 40)) / 2  # the rest is the steps'
  assert distance(law_of(400, 2, 1)) > 0.5  # which do not help replacement


@pytest.mark.parametrize("resamples", [1, 4])
def test_what_is_drawn_beside_a_known_pixel(resamples):
  num = 20_000
  known = np.array([[True, False]])
  x_0 = jnp.tile(jnp.array([SEEN, 99.0]).reshape(1, 1, 2, 1), (num, 1, 1, 1))
  draw = lambda key: inpainting.inpaint(pair, x_0, known, key, grid=GRID, jump=2, resamples=resamples)
  found = np.asarray(jax.jit(draw)(KEY), np.float64)[:, 0, :, 0]
  assert (found[:, 0] == SEEN).all()
  mean, variance = law_of(20, 2, resamples)
  assert abs(found[:, 1].mean() - mean) < 4.5 * np.sqrt(variance / num)
  assert abs(found[:, 1].var() / variance - 1) < 4.5 * np.sqrt(2 / num)


def test_both_parts_are_at_the_same_level_whenever_the_denoiser_is_asked():
  """For data that are one point, 1, ancestral steps of the small variance are at q(x_t | 1) exactly, at every level."""
  seen, num = [], 4000

  def denoise(x, log_snr, label=None):
    jax.debug.callback(lambda x, log_snr: seen.append((np.asarray(x, np.float64), float(log_snr))), x, log_snr)
    return jnp.ones_like(x)

  known = np.array([[True, False]])
  grid = grids.in_log_snr(6.0, -14.0, 8)
  draw = lambda key: inpainting.inpaint(denoise, jnp.ones((num, 1, 2, 1)), known, key, grid=grid, jump=3, resamples=2)
  jax.block_until_ready(jax.jit(draw)(KEY))
  jax.effects_barrier()
  assert len(seen) == len(inpainting.plan(inpainting.walk(8, 3, 2), grid, solvers.Ancestral()).log_snr)
  for x, log_snr in seen:
    for part in (x[:, 0, 0, 0], x[:, 0, 1, 0]):
      assert abs(part.mean() - noise.alpha(log_snr)) < 4.5 * noise.sigma(log_snr) / np.sqrt(num) + 1e-3
      assert abs(part.std() / noise.sigma(log_snr) - 1) < 4.5 / np.sqrt(2 * num) + 1e-3
    assert abs(np.corrcoef(x[:, 0, 0, 0], x[:, 0, 1, 0])[0, 1]) < 4.5 / np.sqrt(num)


def test_every_bit_of_what_is_known_is_returned_and_what_is_hidden_is_not_looked_at():
  levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
  known = completion.region("scattered", (8, 8))
  fill = jax.jit(lambda x, known: inpainting.inpaint(gaussian.mixture(), x, known, KEY, grid=GRID, jump=5, resamples=2))
  x_0 = images.to_symmetric(jnp.asarray(levels))
  found = fill(x_0, known)
  every = np.broadcast_to(known[None, :, :, None], levels.shape)
  np.testing.assert_array_equal(found[every], x_0[every])
  np.testing.assert_array_equal(np.asarray(images.from_symmetric(found))[every], levels[every])
  np.testing.assert_array_equal(fill(jnp.where(every, x_0, 7.0), known), found)
  np.testing.assert_array_equal(fill(x_0, every), found)
  np.testing.assert_allclose(found[:2], fill(x_0[:2], known), atol=1e-5)  # image i by its own index
  assert np.abs(found - x_0)[~every].max() > 0.1


# Beyond the edges.


@pytest.mark.parametrize("margins", [(0, 0, 0, 4), (3, 5, 9, 1), (8, 0, 0, 0), (1, 1, 1, 1)])
@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_windows_cover_the_canvas_and_each_knows_half_of_what_it_shows(size, margins):
  known = np.zeros((size[0] + margins[0] + margins[1], size[1] + margins[2] + margins[3]), bool)
  known[margins[0] :, margins[2] :][: size[0], : size[1]] = True
  for row, column in inpainting.windows(size, margins):
    view = known[row : row + size[0], column : column + size[1]]
    assert view.shape == size
    assert view.mean() >= 0.5
    view[:] = True
  assert known.all()
  assert not inpainting.windows(size, (0, 0, 0, 0))


def test_an_image_of_one_grey_is_continued_in_that_grey():
  """For images that are one number, N(0, 1), throughout, the rest follows from what is known, window after window."""

  def denoise(x, log_snr, label=None):
    a, s, count = noise.alpha(log_snr), noise.sigma(log_snr), x[0].size
    return jnp.broadcast_to(a * x.sum((1, 2, 3), keepdims=True) / (s**2 + a**2 * count), x.shape)

  grey = jnp.array([-1.0, 0.2, 1.3]).reshape(3, 1, 1, 1)
  grid = grids.in_log_snr(13.0, -6.0, 16)
  options = dict(margins=(2, 3, 0, 5), grid=grid, jump=3, resamples=3)
  found = jax.jit(lambda x, key: inpainting.outpaint(denoise, x, key, **options))(jnp.broadcast_to(grey, (3, 4, 4, 2)), KEY)
  assert found.shape == (3, 9, 9, 2)
  np.testing.assert_array_equal(found[:, 2:6, :4], jnp.broadcast_to(grey, (3, 4, 4, 2)))
  np.testing.assert_allclose(found, jnp.broadcast_to(grey, found.shape), atol=0.02)
  assert len(np.unique(found[0])) > 2


def test_no_margin_is_the_image_and_a_negative_one_is_refused():
  x_0 = jnp.ones((2, 4, 4, 1))
  np.testing.assert_array_equal(inpainting.outpaint(pair, x_0, KEY, margins=(0, 0, 0, 0), grid=GRID), x_0)
  with pytest.raises(UserError, match="margins"):
    inpainting.outpaint(pair, x_0, KEY, margins=(0, -1, 0, 0), grid=GRID)
