"""Areas under the curve against all pairs and against closed forms, and scores that mean what they say."""

import math
import zlib

import numpy as np
import pytest
from scipy import stats

from gm_jax.tasks import outliers

RNG = np.random.default_rng(0)


def all_pairs(inliers, others):
  difference = np.asarray(others)[:, None] - np.asarray(inliers)[None]
  return ((difference > 0) + (difference == 0) / 2).mean()


@pytest.mark.parametrize("levels", [3, 10, 10**6])
def test_the_area_is_the_share_of_pairs_in_order(levels):
  for num_inliers, num_outliers in ((1, 1), (7, 30), (50, 20)):
    inliers, others = RNG.integers(0, levels, num_inliers), RNG.integers(levels // 3, levels, num_outliers)
    assert outliers.auroc(inliers, others) == pytest.approx(all_pairs(inliers, others), abs=1e-12)


def test_the_area_of_extremes():
  assert outliers.auroc([1, 2], [3, 4]) == 1
  assert outliers.auroc([3, 4], [1, 2]) == 0
  assert outliers.auroc([5, 5], [5, 5]) == 0.5
  assert outliers.auroc([1, np.inf], [np.inf]) == 0.75
  for scores in ([1.0, math.nan], []):
    with pytest.raises(ValueError, match="NaN"):
      outliers.auroc(scores, [1.0])


@pytest.mark.parametrize("distance", [0.0, 0.5, 2.0])
def test_two_gaussians_d_apart_give_phi_of_d_over_root_two(distance):
  num = 20_000
  area = outliers.auroc(RNG.normal(size=num), RNG.normal(size=num) + distance)
  truth = stats.norm.cdf(distance / math.sqrt(2))
  assert abs(area - truth) < 4.5 * outliers.auroc_stderr(truth, num, num)


@pytest.mark.parametrize("rate", [1.0, 2.0, 5.0])
def test_the_standard_error_is_exact_for_exponential_laws(rate):
  """Inliers Exp(rate), outliers Exp(1): the area is rate / (1 + rate), and its spread over 4,000 draws is the formula's."""
  num_inliers, num_outliers, repeats = 12, 25, 4000
  draw = lambda scale, num: RNG.exponential(scale, (repeats, num))
  areas = [outliers.auroc(*pair) for pair in zip(draw(1 / rate, num_inliers), draw(1.0, num_outliers))]
  truth = rate / (1 + rate)
  stderr = outliers.auroc_stderr(truth, num_inliers, num_outliers)
  assert abs(np.mean(areas) - truth) < 4.5 * stderr / math.sqrt(repeats)
  assert np.std(areas) == pytest.approx(stderr, rel=4.5 / math.sqrt(2 * repeats))
  assert outliers.auroc_stderr(1.0, 10, 10) == 0


def test_typicality_finds_what_is_too_probable():
  """An isotropic Gaussian in 100 dimensions: its own mean is the most probable point and nothing like a draw."""
  nll = lambda x: 0.5 * (x**2).sum(1)
  train, test = RNG.normal(size=(2, 2000, 100))
  centre = np.zeros((500, 100))
  typical = nll(train).mean()
  found, usual = outliers.scores(nll(centre), typical), outliers.scores(nll(test), typical)
  assert outliers.auroc(usual["score"], found["score"]) == 0
  assert outliers.auroc(usual["typicality"], found["typicality"]) == 1
  own = outliers.scores(nll(train[:1000]), typical)["typicality"]
  assert abs(outliers.auroc(own, usual["typicality"]) - 0.5) < 4.5 * outliers.auroc_stderr(0.5, 1000, 2000)


def test_a_group_is_judged_more_surely_than_one():
  """Means of groups of n lie n^(1/2) closer: with the spread of one image 1 and outliers d off, typicality's area rises."""
  usual, others = RNG.normal(size=20_000), RNG.normal(size=20_000) + 1.0
  one, ten = (outliers.scores(values, 0.0) for values in (usual, others))
  areas = [outliers.auroc(one[name], ten[name]) for name in ("typicality", "typicality of 10")]
  for size, area in zip((1, 10), areas):
    deviates = lambda shift: np.abs(np.random.default_rng(size).normal(shift, size**-0.5, 40_000))  # noqa: B023
    assert area == pytest.approx(outliers.auroc(deviates(0.0), deviates(1.0)[::-1]), abs=0.025)
  assert areas[1] > areas[0] + 0.2
  np.testing.assert_array_equal(outliers.group_means(np.arange(7.0), 3), [1, 4])


def test_the_right_background_cancels_what_both_models_know():
  """x = (content, background): the background varies much more, and only the ratio sees the content."""
  nll = lambda x, scale: (0.5 * (x / scale) ** 2 + np.log(scale)).sum(1)
  usual, others = RNG.normal(size=(2, 4000, 2)) * [1, 1]
  others = others + [2, 0]
  clutter = 30 * RNG.normal(size=(2, 4000, 20))
  whole = [nll(x, np.ones(2)) + nll(noise, 1.0) for x, noise in zip((usual, others), clutter)]
  background = [nll(x, 3 * np.ones(2)) + nll(noise, 1.0) for x, noise in zip((usual, others), clutter)]
  plain, ratio = (
    outliers.auroc(*[outliers.scores(w, 0.0, b)[name] for w, b in zip(whole, background)]) for name in ("score", "ratio")
  )
  assert abs(plain - 0.5) < 0.05
  assert ratio == pytest.approx(outliers.auroc(nll(usual, np.ones(2)), nll(others, np.ones(2))), abs=1e-6)


def test_compressed_sizes():
  image = np.zeros((4, 16, 16, 1), np.uint8)
  image[1] = np.arange(16)[:, None, None] * 16 + 3  # a ramp, constant down to its upper neighbour
  image[2] = RNG.integers(0, 256, (16, 16, 1))
  image[3] = 255 * RNG.integers(0, 2, (16, 16, 1))
  flat, ramp, noise, coins = outliers.compressed_nats(image) / (8 * math.log(2))
  assert flat < ramp < 40 < noise
  assert noise <= 256 + 6  # deflate stores what it cannot compress, for five bytes
  assert 32 <= coins <= 32 + 6  # a bit per pixel
  for size in (flat, ramp, noise, coins):
    assert size == int(size)


def test_compression_is_no_better_than_the_zlib_of_the_same_filters():
  image = RNG.integers(0, 40, (1, 8, 8, 3)).astype(np.uint8)
  left = image[0].copy()
  left[:, 1:] -= image[0][:, :-1]
  up = np.concatenate([image[0][:1], image[0][1:] - image[0][:-1]])
  wrapped = min(len(zlib.compress(array.tobytes(), 9)) for array in (image[0], left, up)) - 6  # zlib's own header and checksum
  assert outliers.compressed_nats(image)[0] == pytest.approx(wrapped * 8 * math.log(2))


@pytest.mark.parametrize("kind", outliers.KINDS)
def test_kinds_keep_the_form_and_are_a_function_of_the_seed(kind):
  images = RNG.integers(0, 256, (20, 5, 6, 3)).astype(np.uint8)
  made = outliers.make(kind, images, 0)
  assert made.shape == images.shape
  assert made.dtype == np.uint8
  assert (made != images).any()
  np.testing.assert_array_equal(made, outliers.make(kind, images, 0))
  assert kind in ("rotated", "inverted") or (made != outliers.make(kind, images, 1)).any()


def test_kinds_are_what_they_are_called():
  images = RNG.integers(0, 256, (20, 5, 6, 3)).astype(np.uint8)
  made = {kind: outliers.make(kind, images, 0) for kind in outliers.KINDS}
  pixels = lambda batch: np.sort(batch.reshape(20, 30, 3).view("u1,u1,u1"), axis=1)
  np.testing.assert_array_equal(pixels(made["shuffled"]), pixels(images))
  places = outliers.make("shuffled", np.arange(20 * 30, dtype=np.uint8).reshape(20, 5, 6, 1), 0).reshape(20, 30)
  assert len({tuple((row - row.min()) % 256) for row in places.astype(int)}) == 20  # one permutation per image
  np.testing.assert_array_equal(made["rotated"], np.rot90(images, 2, axes=(1, 2)))
  np.testing.assert_array_equal(made["inverted"].astype(int) + images, 255)
  assert (made["constant"] == made["constant"][:, :1, :1]).all()
  assert len(np.unique(made["constant"][:, 0, 0, 0])) > 5
  assert stats.kstest(outliers.make("noise", np.zeros((50, 9, 9, 1), np.uint8), 0).ravel() / 255.5, "uniform").pvalue > 1e-3
