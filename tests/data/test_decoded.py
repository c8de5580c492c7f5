"""Decoded arrays that are kept: never out of date, never half written, never in the way."""

import numpy as np
import pytest

from gm_jax.data import decoded

ARRAYS = {"image": np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1), "label": np.arange(3, dtype=np.int32)}


class Maker:
  """Makes the arrays and counts how often."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return ARRAYS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(decoded, "WORTH_KEEPING", 0.0)
  return tmp_path / "cache" / "gm_jax" / "data"


def same(arrays):
  for name in ARRAYS:
    np.testing.assert_array_equal(arrays[name], ARRAYS[name], strict=True)


def test_made_once(cache):
  make = Maker()
  same(decoded.remember(make, ["a", 1]))
  same(decoded.remember(make, ["a", 1]))
  assert make.calls == 1
  decoded.remember(make, ["a", 2])
  assert make.calls == 2
  assert cache.stat().st_mode & 0o077 == 0


def test_a_file_that_changed_is_read_again(tmp_path):
  file, make = tmp_path / "records", Maker()
  for content in ("one", "other"):
    file.write_text(content)
    decoded.remember(make, decoded.stamp(file))
  assert make.calls == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_copy_is_made_again(cache, damage):
  make = Maker()
  decoded.remember(make, "x")
  (copy,) = cache.iterdir()
  content = bytearray(copy.read_bytes())
  content[content.index(ARRAYS["image"].tobytes()) + 5] ^= 1
  copy.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b"", "text": b"no arrays"}[damage])
  same(decoded.remember(make, "x"))
  assert make.calls == 2
  same(decoded.remember(make, "x"))
  assert make.calls == 2


def test_no_room_to_write(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("in the way")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  same(decoded.remember(Maker(), "x"))


def test_nothing_half_written_is_left(cache, monkeypatch):
  def full(file, **arrays):
    file.write(b"half")
    raise OSError("no space left on device")

  monkeypatch.setattr(np, "savez", full)
  same(decoded.remember(Maker(), "x"))
  assert not list(cache.iterdir())


def test_what_is_quick_is_not_kept(cache, monkeypatch):
  monkeypatch.setattr(decoded, "WORTH_KEEPING", 60.0)
  decoded.remember(Maker(), "x")
  assert not cache.exists()
