"""A small classifier of images, trained on real ones and then frozen: it says what a sample shows, and how sure it is.

It is trained like any model here, but it models p(label | image), so it has nothing to sample.  Its judgement of generated
images means something because it is calibrated on real ones: plain cross-entropy, no smoothed labels, and the average of the
parameters over the last steps.  `judge` reports the same of any images, so samples are read beside the real test split.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.networks.convnet import ConvEncoder
from gm_jax.networks.dropout import Dropout


class Classifier(nn.Module):
  """x in [-1, 1], [B, H, W, C] -> logits [B, num_classes]."""

  num_classes: int
  channels: Sequence[int] = (32, 64)
  hidden: int = 128
  rate: float = 0.3  # of dropout

  def setup(self):
    self.encoder = ConvEncoder(self.channels, self.hidden)
    self.dropout = Dropout(self.rate)
    self.head = nn.Dense(self.num_classes)

  def features(self, x, train: bool):
    """What the last layer sees, [B, hidden]."""
    return self.encoder(x, train)

  def __call__(self, x, train: bool):
    return self.head(self.dropout(self.features(x, train), train))


def objective(network: Classifier, key, batch, train: bool):
  """Cross-entropy in nats [B]; in training every image is shifted, by up to a fourteenth of its width (2 pixels of 28)."""
  x = images.to_symmetric(batch["image"])
  if train:
    x = shifted(key, x, x.shape[2] // 14)
  logits = network(x, train)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
  return losses, {"error": (logits.argmax(-1) != batch["label"]).astype(jnp.float32)}


def shifted(key, x, reach: int):
  """Each image of x [B, H, W, C] moved by its own whole number of pixels, -reach to reach; what comes in is black."""
  corners = random.randint(key, len(x), (2,), 0, 2 * reach + 1)
  padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), constant_values=-1)
  cut = lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), x.shape[1:])
  return jax.vmap(cut)(padded, corners)


def classifier(module: Classifier, optimizer: optax.GradientTransformation, *, decay: float = 0.999) -> GenerativeModel:
  """The classifier as the loop sees it; `evaluate` gives "cross_entropy" in nats and "error", 0 or 1."""
  return from_objective(module, objective, _no_images, optimizer, reports="cross_entropy", decay=decay)


def probabilities(module: Classifier, variables, pictures, batch_size: int = 500) -> np.ndarray:
  """p(label | image), float32 [N, num_classes], of uint8 images [N, H, W, C]."""
  return _in_pieces(module, _probabilities, variables, pictures, batch_size)


def features(module: Classifier, variables, pictures, batch_size: int = 500) -> np.ndarray:
  """The last hidden layer, float32 [N, hidden], of uint8 images [N, H, W, C]."""
  return _in_pieces(module, _features, variables, pictures, batch_size)


def judge(module: Classifier, variables, pictures) -> dict:
  """What the classifier sees in uint8 images [N, H, W, C].

  Returns:
    "confidence", the mean over images of the largest probability; "shares", the share of images whose most probable class is
    each; "smallest_share"; "count".
  """
  found = probabilities(module, variables, pictures)
  shares = np.bincount(found.argmax(-1), minlength=module.num_classes) / len(found)
  return {
    "confidence": float(found.max(-1).mean()),
    "shares": shares.tolist(),
    "smallest_share": float(shares.min()),
    "count": len(found),
  }


def accuracy(module: Classifier, variables, pictures, label) -> dict:
  """How often uint8 images [N, H, W, C] show what their labels, int [N], say.

  Returns:
    "accuracy", and "accuracies" of each class, None for one that no image has.
  """
  label = np.asarray(label)
  right = probabilities(module, variables, pictures).argmax(-1) == label
  of_class = lambda number: float(right[label == number].mean()) if (label == number).any() else None
  return {"accuracy": float(right.mean()), "accuracies": [of_class(number) for number in range(module.num_classes)]}


def _no_images(network, key, num, condition):
  raise TypeError("a classifier models labels given images; it draws no images")


def _probabilities(network: Classifier, x):
  return nn.softmax(network(x, train=False))


def _features(network: Classifier, x):
  return network.features(x, train=False)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(module, function, variables, pictures):
  return nn.apply(function, module)(variables, images.to_symmetric(pictures))


def _in_pieces(module, function, variables, pictures, batch_size: int) -> np.ndarray:
  pictures = np.asarray(pictures)
  pieces = []
  for first in range(0, len(pictures), batch_size):
    piece = pictures[first : first + batch_size]
    filled = np.concatenate([piece, np.repeat(piece[-1:], batch_size - len(piece), axis=0)])  # one shape is compiled
    pieces.append(np.asarray(_apply(module, function, variables, filled))[: len(piece)])
  return np.concatenate(pieces)
