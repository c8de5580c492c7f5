"""Holes are drawn from, and scored by, the conditional law: against enumeration of all that could be there."""

import math

import jax
import numpy as np
import optax
import pytest

from gm_jax import images, testing
from gm_jax.errors import UserError
from gm_jax.networks.masked import MaskedMLP
from gm_jax.tasks import completion
from gm_jax.tractable import made
from tests import sequentials

KINDS = ("neighbourhood", "mixture", "plain network", "fvsbn", "nade", "colour network", "bytes")


def all_holes(kind):
  """(model's parts, images that agree on what is known, known [H, W], log p of each given that, by enumeration)."""
  parts = sequentials.trained(kind)
  _, (height, width, channels), levels = sequentials.KINDS[kind]
  hidden = max(1, int(math.log(1000, levels)) // channels)  # pixels, so that there are at most 1000 fillings
  known = (np.arange(height * width) < height * width - hidden).reshape(height, width)
  fillings = testing.all_states((1, hidden, channels), levels)
  pictures = sequentials.pictures(kind, 1).repeat(len(fillings), 0)
  pictures[:, ~known] = images.from_levels(fillings[:, 0], levels)
  nll = jax.jit(parts.model.evaluate)(jax.random.key(0), parts.state, {"image": pictures})["nll"]
  log_p = -np.asarray(nll, np.float64)
  return parts, pictures, known, log_p - np.logaddexp.reduce(log_p)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hole_has_its_conditional_probability(kind):
  parts, pictures, known, expected = all_holes(kind)
  fill = completion.in_order(parts.sequential)
  np.testing.assert_allclose(fill.log_prob(parts.state, jax.random.key(0), pictures, known), expected, atol=2e-4)


@pytest.mark.parametrize("kind", ["neighbourhood", "colour network"])
def test_completions_follow_that_law(kind):
  parts, pictures, known, expected = all_holes(kind)
  num = 20_000
  given = np.where(known[..., None], pictures[0], 77).astype(np.uint8)  # 77 is not looked at
  fill = completion.in_order(parts.sequential)
  drawn = np.asarray(fill.complete(parts.state, jax.random.key(3), np.repeat(given[None], num, 0), known))
  assert (drawn[:, known] == given[known]).all()
  code = {picture.tobytes(): index for index, picture in enumerate(pictures)}
  seen = np.bincount([code[picture.tobytes()] for picture in drawn], minlength=len(pictures))
  wanted = num * np.exp(expected)
  likely = wanted > 5
  chi_square = ((seen - wanted)[likely] ** 2 / wanted[likely]).sum()
  assert abs(chi_square - likely.sum()) < 5 * math.sqrt(2 * likely.sum())
  assert abs(seen[~likely].sum() - wanted[~likely].sum()) < 5 * math.sqrt(wanted[~likely].sum() + 1)


def test_nothing_known_is_a_sample_and_all_known_is_the_image():
  parts = sequentials.trained("neighbourhood")
  fill, pictures = completion.in_order(parts.sequential), sequentials.pictures("neighbourhood", 200)
  everything = np.ones(pictures.shape[1:3], bool)
  complete = lambda known, pictures: np.asarray(fill.complete(parts.state, jax.random.key(0), pictures, known))
  np.testing.assert_array_equal(complete(everything, pictures), pictures)
  np.testing.assert_array_equal(fill.log_prob(parts.state, jax.random.key(0), pictures, everything), 0)
  np.testing.assert_array_equal(complete(~everything, pictures), complete(~everything, 255 - pictures))
  whole = -fill.log_prob(parts.state, jax.random.key(0), pictures, ~everything)
  nll = jax.jit(parts.model.evaluate)(jax.random.key(0), parts.state, {"image": pictures})["nll"]
  np.testing.assert_allclose(whole, nll, rtol=1e-4)


def test_an_image_is_completed_alone_as_among_others():
  parts = sequentials.trained("plain network")
  fill, pictures = completion.in_order(parts.sequential), sequentials.pictures("plain network", 7)
  known = completion.region("top", pictures.shape[1:3])
  few = fill.complete(parts.state, jax.random.key(5), pictures[:3], known)
  np.testing.assert_array_equal(fill.complete(parts.state, jax.random.key(5), pictures, known)[:3], few)


def test_a_hole_that_the_order_does_not_leave_for_the_end_is_refused():
  parts = sequentials.trained("neighbourhood")
  pictures = sequentials.pictures("neighbourhood", 2)
  with pytest.raises(UserError, match="first .*any order"):
    completion.in_order(parts.sequential).complete(
      parts.state, jax.random.key(0), pictures, completion.region("left", pictures.shape[1:3])
    )


def test_in_any_order_the_likelihood_is_a_mixture_over_orders_and_sums_to_one():
  network = MaskedMLP(9, (8,), direct=True)
  model = made.made(network, made.any_order(network, made.ensemble(jax.random.key(0), network, 2)), optax.adam(1e-2), (3, 3, 1))
  pictures = np.asarray(images.from_levels(testing.all_states((3, 3, 1), 2), 2))
  state = jax.jit(model.init)(jax.random.key(0), {"image": pictures[:4]})
  noise = np.random.default_rng(0)
  noisy = jax.tree.map(lambda leaf: np.float32(leaf + noise.normal(0, 0.5, leaf.shape)), state.average.variables)
  state = state._replace(average=state.average._replace(variables=noisy))
  known = completion.region("top", (3, 3)) ^ np.eye(3, dtype=bool)  # a ragged hole
  alike = pictures[(pictures == pictures[300])[:, known].all((1, 2))]
  fill = completion.in_any_order(network, num_orders=4)
  log_probs = np.asarray(fill.log_prob(state, jax.random.key(1), alike, known))
  # Image i has orders of its own, so the sum is taken over fillings of one image at a time.
  one = [float(fill.log_prob(state, jax.random.key(1), picture[None], known)[0]) for picture in alike]
  assert abs(np.exp(one).sum() - 1) < 1e-4
  assert log_probs[0] == pytest.approx(one[0], abs=1e-4)
  drawn = np.asarray(fill.complete(state, jax.random.key(2), alike, known))
  assert (drawn[:, known] == alike[:, known]).all()


@pytest.mark.parametrize("name", completion.REGIONS)
def test_regions(name):
  known = completion.region(name, (28, 28))
  share = {"around": 0.75, "scattered": 0.25}.get(name, 0.5)
  assert abs(known.mean() - share) < 0.05
  opposite = {"top": "bottom", "left": "right"}
  if name in opposite:
    np.testing.assert_array_equal(known, ~completion.region(opposite[name], (28, 28)))


def test_an_unknown_region_is_refused():
  with pytest.raises(UserError, match="'middle'.*top"):
    completion.region("middle", (8, 8))


def test_the_sheet_shows_images_above_what_is_known_above_completions():
  pictures = sequentials.pictures("neighbourhood", 2)
  known = completion.region("top", pictures.shape[1:3])
  drawn = np.stack([pictures, 255 - pictures, pictures])
  picture = completion.sheet(pictures, known, drawn)
  height, width = pictures.shape[1:3]
  cell = lambda row, column: picture[1 + row * (height + 1) :][:height, 1 + column * (width + 1) :][:, :width]
  np.testing.assert_array_equal(cell(0, 1), pictures[1])
  np.testing.assert_array_equal(cell(1, 0)[known], pictures[0][known])
  assert (cell(1, 0)[~known] == 128).all()
  np.testing.assert_array_equal(cell(3, 1), 255 - pictures[1])
