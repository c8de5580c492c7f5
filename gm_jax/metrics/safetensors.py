"""Tensors out of a safetensors file, by name (https://huggingface.co/docs/safetensors, "Format").

Eight bytes give the length of a header, little-endian; the header is JSON, name -> {"dtype", "shape", "data_offsets"}; then
come the bytes of the tensors, little-endian and row by row.  Nothing in such a file is ever run.
"""

import json
import math
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError

TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


def reader(path) -> Callable:
  """`name -> tensor`, an array of a type in `TYPES`, or None where the file has no tensor of that name.

  Raises:
    UserError: the file cannot be read or is no safetensors; or, once asked for, that the tensor is damaged.
  """
  try:
    content = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(f"{path} cannot be read ({error.strerror}); a safetensors file is needed") from error
  start = 8 + int.from_bytes(content[:8], "little")
  header = _header(content[8:start]) if start <= len(content) else None
  if header is None:
    raise UserError(f"{path} is not a safetensors file; `safetensors.torch.save_file` makes one of a state dict")

  def read(name: str) -> np.ndarray | None:
    if name not in header:
      return None
    try:
      entry = header[name]
      (first, end), shape, dtype = entry["data_offsets"], entry["shape"], np.dtype(TYPES[entry["dtype"]])
      if first < 0 or end - first != math.prod(shape) * dtype.itemsize:
        raise ValueError("its shape has another number of bytes")
      return np.frombuffer(content, dtype.newbyteorder("<"), math.prod(shape), start + first).reshape(shape)
    except (KeyError, TypeError, ValueError):
      raise UserError(f"{path}: {name} is damaged, or of another type than {', '.join(TYPES)}") from None

  return read


def _header(text: bytes) -> dict | None:
  try:
    header = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return header if isinstance(header, dict) else None
