"""Images to a file and back, without loss, at the length that the model promises: -log2 p(x) bits.

A range coder (Martin 1979; constriction, https://github.com/bamler-lab/constriction) turns symbols and their probabilities into
bits and loses next to nothing on the way.  The symbols are the images' variables, one after another; their probabilities are
the model's conditionals (tractable/sequential.py).

The decoder must find the very numbers that the encoder found, to the last bit.  So both run the same compiled step on the same
batches, one variable at a time, although the encoder could have had all conditionals from one pass: another program rounds
otherwise.  Another machine may, too.  Then what is decoded is not what was encoded, and the file's checksum tells.

    magic and version | CRC-32 of all that follows | header | words of 32 bits from the range coder
"""

import hashlib
import io
import struct
import zlib
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images as convert
from gm_jax.errors import UserError
from gm_jax.tractable.sequential import Sequential

MAGIC, VERSION = b"gmz", 1
UNITS = 2**24  # that the coder divides a probability into; every level is given one at least
START = struct.Struct("<3sBI")
HEADER = struct.Struct("<32s32s32sIIIII")
SHEET = 16_000  # pixels along the side of a picture that WebP can hold


class Header(NamedTuple):
  """What a file says of itself."""

  model: bytes  # `fingerprint` of the model it was made by
  checksum: bytes  # SHA-256 of the images
  maker: str  # the software and device that it was made with
  batch_size: int
  shape: tuple[int, int, int, int]  # N, H, W, C


def fingerprint(name: str, state) -> bytes:
  """SHA-256 of a model: a name for how its state is read, and every array of the state with its place."""
  digest = hashlib.sha256(name.encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    array = np.ascontiguousarray(leaf)
    digest.update(f"\n{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape}\n".encode())
    digest.update(array)
  return digest.digest()


def encode(sequential: Sequential, state, images, *, model: bytes, batch_size: int = 1000) -> bytes:
  """The file of uint8 images [N, H, W, C], N > 0.

  Args:
    sequential, state: the model.
    images: with pixels of the model's levels only, black and white for two.
    model: its `fingerprint`.
    batch_size: images at a time; memory is all that depends on it, and a handful of bits do.

  Raises:
    UserError: the images are not of the model's size or have other levels, or constriction is not installed.
  """
  images = np.ascontiguousarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
    raise UserError(f"{images.dtype} {images.shape} cannot be compressed; take uint8 [N, H, W, C]")
  steps = _Steps(sequential, state, images.shape[1:], min(batch_size, len(images)))
  x = np.asarray(convert.to_levels(images, sequential.levels)).reshape(len(images), -1)
  back = np.asarray(convert.from_levels(x, sequential.levels)).reshape(images.shape)
  if (back != images).any():
    image = int((back != images).any((1, 2, 3)).argmax())
    raise UserError(f"image {image} has other levels than the {sequential.levels} of the model: nothing would bring them back")
  coder = _constriction().stream.queue.RangeEncoder()
  for first in range(0, len(x), steps.batch_size):
    piece = x[first : first + steps.batch_size]
    steps.begin()
    for variable in steps.order:
      coder.encode(np.ascontiguousarray(piece[:, variable]), steps.family, steps.probabilities(len(piece)))
      steps.tell(piece[:, variable])
  checksum = hashlib.sha256(images).digest()
  head = HEADER.pack(model, checksum, _maker().encode()[:32], steps.batch_size, *images.shape)
  body = head + coder.get_compressed().astype("<u4").tobytes()
  return START.pack(MAGIC, VERSION, zlib.crc32(body)) + body


def decode(sequential: Sequential, state, content: bytes, *, model: bytes) -> np.ndarray:
  """The images in a file that `encode` made with the same model: uint8 [N, H, W, C].

  Raises:
    UserError: the file is of another model, another version, damaged or none of ours; or the decoded images are not those that
      were encoded, since the conditionals differ in the last bits from where it was made.
  """
  header = read_header(content)
  if header.model != model:
    raise UserError(f"made by another model ({header.model.hex()[:12]}), not by this one ({model.hex()[:12]})")
  num, *shape = header.shape
  steps = _Steps(sequential, state, tuple(shape), header.batch_size)
  words = np.frombuffer(content, "<u4", offset=START.size + HEADER.size).astype(np.uint32)
  coder = _constriction().stream.queue.RangeDecoder(words)
  x = np.zeros((num, len(steps.order)), np.int32)
  try:
    for first in range(0, num, steps.batch_size):
      piece = x[first : first + steps.batch_size]
      steps.begin()
      for variable in steps.order:
        piece[:, variable] = coder.decode(steps.family, steps.probabilities(len(piece)))
        steps.tell(piece[:, variable])
    images = np.asarray(convert.from_levels(x, sequential.levels)).reshape(header.shape)
    same = hashlib.sha256(images).digest() == header.checksum
  except AssertionError:  # the coder met bits that no symbols give
    same = False
  if not same:
    raise UserError(f"the file is whole, but its images do not come back by {_maker()}; it was made by {header.maker}")
  return images


def read_header(content: bytes) -> Header:
  """What a file says of itself; UserError if it is not a whole file of this version."""
  if len(content) < START.size or not content.startswith(MAGIC):
    raise UserError("not a file of compressed images")
  _, version, checksum = START.unpack_from(content)
  if version != VERSION:
    raise UserError(f"of version {version}; this is version {VERSION}")
  body = content[START.size :]
  if zlib.crc32(body) != checksum or len(body) < HEADER.size or (len(body) - HEADER.size) % 4:
    raise UserError("damaged: some of its bytes are missing or changed")
  model, images, maker, batch_size, *shape = HEADER.unpack_from(body)
  if not 1 <= batch_size <= shape[0]:
    raise UserError(f"damaged: {shape[0]} images in batches of {batch_size}")
  return Header(model, images, maker.rstrip(b"\0").decode(errors="replace"), batch_size, tuple(shape))


def rivals(images) -> dict[str, int]:
  """Bytes that general formats take for images [N, H, W, C], each in a file of its own and all on sheets.

  PNG is 1 bit deep if all is black and white.  On a sheet images share the overhead of one file and what its compressor has
  learnt: the fairer opponent.  {} unless C is 1 or 3.
  """
  images = np.asarray(images)
  num, height, width, channels = images.shape
  if channels not in (1, 3):
    return {}
  black_and_white = bool(np.isin(images, (0, 255)).all())
  across, down = (max(1, SHEET // size) for size in (width, height))
  columns = min(across, max(1, round((num * height / width) ** 0.5)))
  rows = min(down, -(-num // columns))
  sheets = [convert.grid(images[i : i + rows * columns], columns, 0) for i in range(0, num, rows * columns)]
  tall = [images[i : i + down].reshape(-1, width, channels) for i in range(0, num, down)]
  size = lambda pictures, **options: sum(_stored(picture, black_and_white, **options) for picture in pictures)
  png, webp = dict(format="PNG", optimize=True), dict(format="WEBP", lossless=True, quality=100, method=4)
  return {
    "PNG": size(images, **png),
    "PNG on sheets": min(size(sheets, **png), size(tall, **png)),
    "WebP": size(images, **webp),
    "WebP on sheets": min(size(sheets, **webp), size(tall, **webp)),
  }


class _Steps:
  """The compiled step, and where it is: what encoder and decoder have in common, so that both see the same numbers."""

  def __init__(self, sequential: Sequential, state, image_shape: tuple, batch_size: int):
    order, self.given = _prepare(sequential, state)
    self.order, self.batch_size = [*map(int, order)], batch_size
    if len(self.order) != np.prod(image_shape):
      raise UserError(f"images {image_shape} have {np.prod(image_shape)} variables, and the model has {len(self.order)}")
    self.family = _constriction().stream.model.Categorical(perfect=False)
    self._sequential, self._order = sequential, order

  def begin(self):
    """A new batch, nothing of it known."""
    self._x = jnp.zeros((self.batch_size, len(self.order)), jnp.int32)
    self._memory, self._t = _begin(self._sequential, self.given, self._x), 0
    self._last = np.zeros(self.batch_size, np.int32)

  def probabilities(self, num: int) -> np.ndarray:
    """Of the next variable of the first `num` images: float64 [num, L], multiples of 1 / UNITS."""
    moving = self._memory, self._x, self._last, np.int32(self._t)
    units, self._memory, self._x = _step(self._sequential, self.given, self._order, *moving)
    return np.asarray(units, np.float64)[:num] / UNITS

  def tell(self, levels):
    """What the variable was, [num]; the rows that fill the batch up are zeros for encoder and decoder alike."""
    self._last = np.zeros(self.batch_size, np.int32)
    self._last[: len(levels)] = levels
    self._t += 1


@partial(jax.jit, static_argnums=0)
def _prepare(sequential: Sequential, state):
  return sequential.prepare(state)


@partial(jax.jit, static_argnums=0)
def _begin(sequential: Sequential, given, x):
  return sequential.begin(given, x)


@partial(jax.jit, static_argnums=0, donate_argnums=(3, 4))
def _step(sequential: Sequential, given, order, memory, x, last, t):
  """Fill in the variable before, look at this one: units of probability int32 [B, L], of which each level has one at least."""
  before = order[jnp.maximum(t - 1, 0)]
  x = x.at[:, before].set(jnp.where(t > 0, last, x[:, before]))
  log_probs, memory = sequential.look(given, memory, x, t)
  units = jnp.maximum(jnp.floor(jnp.exp(log_probs) * UNITS).astype(jnp.int32), 1)
  likeliest = log_probs.argmax(1)
  rest = UNITS - units.sum(1)  # what rounding has left over
  return units.at[jnp.arange(len(units)), likeliest].add(rest), memory, x


def _constriction():
  try:
    import constriction
  except ImportError:
    raise UserError("compression needs the library constriction: pip install 'gm-jax[compress]'") from None
  return constriction


def _maker() -> str:
  return f"jax {jax.__version__} on {jax.devices()[0].device_kind}"


def _stored(picture, black_and_white: bool, **options) -> int:
  """Bytes of one picture [H, W, C] in a file of this format."""
  from PIL import Image

  image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
  if black_and_white and picture.shape[2] == 1 and options["format"] == "PNG":
    image = image.convert("1")
  elif options["format"] == "WEBP":
    image = image.convert("RGB")
  file = io.BytesIO()
  image.save(file, **options)
  return file.tell()
