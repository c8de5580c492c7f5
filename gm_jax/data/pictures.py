"""Picture files to uint8 arrays.  Files come from anywhere: only bitmap formats are opened, and sizes are checked first."""

import io

import numpy as np

from gm_jax.errors import UserError

# Formats that Pillow decodes itself: it hands others (EPS) to outside programs.
FORMATS = {
  "PNG": (".png",),
  "JPEG": (".jpg", ".jpeg"),
  "WEBP": (".webp",),
  "GIF": (".gif",),
  "BMP": (".bmp",),
  "TIFF": (".tif", ".tiff"),
  "PPM": (".pbm", ".pgm", ".ppm"),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MAX_PIXELS = 2**26  # 67 million; a small file can unfold into more than any memory
_MODES = {1: "L", 3: "RGB"}


def decode(file, size: int | None = None, channels: int | None = None, name: str = "picture") -> np.ndarray:
  """One picture, uint8 [H, W, C].

  Args:
    file: a path, or the encoded bytes.
    size: the shorter side is resized to it (antialiased) and the longer one cropped at the centre; None keeps the picture.
    channels: 1 (grey) or 3 (RGB); None keeps grey grey and makes the rest RGB.  What is transparent becomes white.
    name: what error messages call it.
  """
  from PIL import Image, ImageOps

  source = io.BytesIO(file) if isinstance(file, bytes) else file
  try:
    with Image.open(source, formats=tuple(FORMATS)) as image:
      if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{name} is {image.width} x {image.height}; pictures of up to {MAX_PIXELS} pixels are read")
      image = _flatten(ImageOps.exif_transpose(image), channels)
      if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
      return _as_array(image)
  except UserError:
    raise
  except Exception as error:  # a damaged file can raise nearly anything in Pillow
    reason = " ".join(str(error).split()) or type(error).__name__
    raise UserError(f"{name} cannot be read as a picture ({', '.join(FORMATS)}): {reason}") from error


def _flatten(image, channels: int | None):
  """Without transparency, palette or 16-bit levels: mode L or RGB."""
  from PIL import Image

  if image.mode.startswith("I;16"):
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
  return image.convert(_MODES[channels] if channels else "L" if image.mode in ("L", "1") else "RGB")


def _as_array(image) -> np.ndarray:
  channels = len(image.getbands())
  return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, channels)
