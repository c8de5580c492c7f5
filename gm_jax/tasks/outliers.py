"""Is this image like the data at all?  Scores from log p(x), higher for outliers, and how well they tell the two apart.

  score        -log p(x): outliers are improbable.  Simple images of another kind can be more probable than the data themselves
               (Nalisnick et al. 2019, https://arxiv.org/abs/1810.09136), so one score is not enough.
  typicality   |-log p(x) - its mean over the training data|: outliers are atypical, too probable included; a group of images
               is judged more surely than one (Nalisnick et al. 2019, https://arxiv.org/abs/1906.02994).
  ratio        -log p(x) + log p0(x): outliers are improbable for what they are made of.  The background p0 is a second model
               of the same data (Ren et al. 2019, https://arxiv.org/abs/1906.02845), or else how far a general-purpose
               compressor gets: log p0(x) = -compressed size (Serra et al. 2020, https://arxiv.org/abs/1909.11480).

Everything here is host arithmetic on numbers per image, so any model that gives such a number takes part.
"""

import math
import zlib

import numpy as np


def auroc(inliers, outliers) -> float:
  """P(an outlier scores higher than an inlier), ties counted half: the area under the ROC curve, exactly, by ranks.

  Scores [N] and [M]; 1 is perfect, 1/2 is blind (Mann & Whitney 1947).
  """
  inliers, outliers = np.sort(_finite_or_infinite(inliers)), _finite_or_infinite(outliers)
  below, upto = (np.searchsorted(inliers, outliers, side) for side in ("left", "right"))
  return float((below + upto).mean() / (2 * len(inliers)))


def auroc_stderr(area: float, num_inliers: int, num_outliers: int) -> float:
  """The standard error of an area, exact for exponential laws (Hanley & McNeil 1982, equations 1 and 2)."""
  two_outliers, two_inliers = area / (2 - area), 2 * area**2 / (1 + area)  # P(both beat an inlier), P(both lose to an outlier)
  variance = area * (1 - area) + (num_outliers - 1) * (two_outliers - area**2) + (num_inliers - 1) * (two_inliers - area**2)
  return math.sqrt(max(variance, 0.0) / (num_inliers * num_outliers))


def typicality(nll, typical: float):
  """How far from `typical`, the mean nll of the training data: [N] -> [N], nats."""
  return np.abs(np.asarray(nll) - typical)


def group_means(values, size: int):
  """Means over groups of `size` in order, [N] -> [N // size]; what is left over is left out."""
  values = np.asarray(values)
  num = len(values) // size
  return values[: num * size].reshape(num, size).mean(1)


def compressed_nats(images):
  """The size of each image, compressed without loss, in nats: uint8 [N, H, W, C] -> float64 [N].

  That is PNG without its header: each row as it is, or less its left or upper neighbour, whichever deflates best.  Black and
  white images are packed eight pixels to a byte.
  """
  return math.log(2) * 8 * np.array([_deflated(image) for image in np.asarray(images)], np.float64)


def scores(nll, typical: float, background=None, group: int = 10) -> dict[str, np.ndarray]:
  """Every score of N images, higher for outliers: {name: [N], or [N // group] for the groups}.

  Args:
    nll: -log p(x) [N], nats; from models without a likelihood, any number that is higher for outliers.
    typical: the mean of `nll` over the training data.
    background: -log p0(x) [N] in nats, or None for no ratio.
    group: how many images are judged together.
  """
  nll = np.asarray(nll, np.float64)
  found = {
    "score": nll,
    "typicality": typicality(nll, typical),
    f"typicality of {group}": typicality(group_means(nll, group), typical),
  }
  return found if background is None else found | {"ratio": nll - np.asarray(background, np.float64)}


# Other kinds of image, made from the data's own: uint8 [N, H, W, C] -> the same.


def shuffled(rng: np.random.Generator, images):
  """Every image's pixels in an order of its own: the same grey levels, no shapes."""
  num, height, width, channels = images.shape
  order = rng.random((num, height * width)).argsort(axis=1)
  return np.take_along_axis(images.reshape(num, -1, channels), order[:, :, None], axis=1).reshape(images.shape)


def rotated(rng: np.random.Generator, images):
  """Upside down."""
  del rng
  return images[:, ::-1, ::-1]


def inverted(rng: np.random.Generator, images):
  """Black for white."""
  del rng
  return 255 - images


def noise(rng: np.random.Generator, images):
  """Every level equally likely, in every pixel alone."""
  return rng.integers(0, 256, images.shape, np.uint8)


def constant(rng: np.random.Generator, images):
  """One level for the whole image, every level equally likely."""
  level = rng.integers(0, 256, (len(images), 1, 1, images.shape[3]), np.uint8)
  return np.broadcast_to(level, images.shape)


KINDS = {"shuffled": shuffled, "rotated": rotated, "inverted": inverted, "noise": noise, "constant": constant}


def make(kind: str, images, seed: int) -> np.ndarray:
  """Images of one of `KINDS`, a function of (seed, kind, images)."""
  rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(kind.encode())]))
  return np.ascontiguousarray(KINDS[kind](rng, images))


def _finite_or_infinite(values):
  values = np.asarray(values, np.float64)
  if not len(values) or np.isnan(values).any():
    raise ValueError(f"{len(values)} scores, {np.isnan(values).sum()} of them NaN, have no ranks")
  return values


def _deflated(image) -> int:
  """Bytes."""
  levels = image.astype(np.uint8)
  if np.isin(levels, (0, 255)).all():
    return _size(np.packbits(levels > 0, axis=1))
  left, up = levels.copy(), levels.copy()
  left[:, 1:] -= levels[:, :-1]  # modulo 256, as PNG's filters
  up[1:] -= levels[:-1]
  return min(map(_size, (levels, left, up)))


def _size(array) -> int:
  deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
  return len(deflate.compress(array.tobytes()) + deflate.flush())
