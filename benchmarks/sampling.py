"""Drawing images pixel by pixel: from remembered activations against a whole pass of the network for every pixel.

Command: python benchmarks/sampling.py
Hardware: 2 CPU cores
Minutes: 3
Expected: 96 to 631 times as fast at 28 x 28 (wanted: 10), the same images from the same keys

The networks have random parameters: what a pixel costs does not depend on them.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record

from gm_jax.networks import image_lstm, image_transformer, pixelcnn, pixelcnnpp, pixelrnn
from gm_jax.tractable import autoregressive

SHAPE, NUM, LEAST = (28, 28, 1), 8, 10.0

# name: (network, how it is run pixel by pixel)
ROWS = {
  "PixelCNN, 5 blocks of 64": (pixelcnn.PixelCNN(1, 64, 5), pixelcnn.cached()),
  "Gated PixelCNN, 5 blocks of 24": (pixelcnn.GatedPixelCNN(1, features=24, blocks=5), pixelcnn.gated_cached()),
  "PixelCNN++, 3 resolutions of 24": (pixelcnnpp.PixelCNNPP(1, features=24), pixelcnnpp.cached()),
  "PixelRNN, 2 Row LSTM layers of 16": (pixelrnn.PixelRNN(1, image_lstm.RowLSTM, features=32, layers=2), pixelrnn.cached()),
  "PixelRNN, 2 Diagonal BiLSTM layers of 16": (
    pixelrnn.PixelRNN(1, image_lstm.DiagonalBiLSTM, features=32, layers=2),
    pixelrnn.cached(),
  ),
  "Image transformer, 2 layers of 32": (
    image_transformer.ImageTransformer(1, features=32, heads=2, layers=2, reach=2),
    image_transformer.cached(),
  ),
}


def measure(network, scan) -> dict:
  """One row: seconds of both ways, and how many images differ (a tie of floats can be drawn either way)."""
  make = lambda scan: autoregressive.autoregressive(network, autoregressive.bernoulli(), optax.sgd(0.0), SHAPE, scan=scan)
  blank = {"image": jnp.zeros((NUM, *SHAPE), jnp.uint8)}
  state = jax.jit(make(None).init)(jax.random.key(0), blank)
  compiled = lambda way: jax.jit(make(way).sample, static_argnums=2).lower(jax.random.key(1), state, NUM).compile()
  draw = {"remembered": compiled(scan), "whole passes": compiled(None)}
  functions = {name: (lambda function=function: function(jax.random.key(1), state)) for name, function in draw.items()}
  times = {name: record.summary(seconds) for name, seconds in record.interleaved(functions, repeats=2, warmup=0).items()}
  images = [np.asarray(function()) for function in functions.values()]
  return {
    "times": times,
    "ratio": round(times["whole passes"]["median_ms"] / times["remembered"]["median_ms"], 1),
    "images": NUM,
    "images_that_differ": int((images[0] != images[1]).any((1, 2, 3)).sum()),
  }


def main() -> int:
  rows = {name: measure(*row) for name, row in ROWS.items()}
  print(record.write("sampling", {"rows": rows}))
  for name, row in rows.items():
    print(f"{name}: {row['ratio']} times as fast; {row['images_that_differ']} of {NUM} images differ")
  return int(any(row["ratio"] < LEAST or row["images_that_differ"] for row in rows.values()))


if __name__ == "__main__":
  sys.exit(main())
