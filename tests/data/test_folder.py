"""A folder of pictures: classes, splits, sizes, and everything that can be wrong with files."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gm_jax import data
from gm_jax.errors import UserError


def save(path, value=0, size=(8, 8), mode="RGB", **options):
  """A picture of one colour; `size` is (width, height)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def classes(tmp_path):
  """Ten cats (0 to 9) and ten dogs (100 to 109)."""
  for index in range(10):
    save(tmp_path / "cat" / f"{index}.png", (index,) * 3)
    save(tmp_path / "dog" / f"{index}.png", (100 + index,) * 3)
  return tmp_path


def levels(dataset):
  return dataset.arrays["image"][:, 0, 0, 0].tolist()


def test_a_class_per_sub_folder(classes):
  train, test = (data.picture_folder(classes, split, size=8) for split in ("train", "test"))
  assert train.protocol["classes"] == ["cat", "dog"]
  for part in (train, test):
    np.testing.assert_array_equal(part.arrays["label"], np.array(levels(part)) >= 100)
  assert sorted(levels(train) + levels(test)) == [*range(10), *range(100, 110)]  # each in one split, none lost
  assert levels(test) == [9, 109]


def test_no_classes_without_sub_folders(tmp_path):
  for index in range(5):
    save(tmp_path / f"{index}.png", (index,) * 3)
  assert data.picture_folder(tmp_path, size=8).arrays.keys() == {"image"}


def test_splits_that_the_folder_names(tmp_path):
  for split, value in (("train", 1), ("test", 2), ("validation", 3)):
    save(tmp_path / split / "cat" / "a.png", (value,) * 3)
  for split, value in (("train", 1), ("test", 2), ("validation", 3)):
    assert levels(data.picture_folder(tmp_path, split, size=8)) == [value]
  with pytest.raises(UserError, match="'dev'.*test, train, validation"):
    data.picture_folder(tmp_path, "dev", size=8)


def test_the_longer_side_is_cropped_at_the_centre(tmp_path):
  """Three stripes, the middle one square: only it is seen, in one of the two directions of a transposed copy too."""
  picture = np.zeros((8, 24, 3), np.uint8)
  picture[:, 8:16] = 200
  Image.fromarray(picture).save(tmp_path / "wide.png")
  Image.fromarray(picture.transpose(1, 0, 2)).save(tmp_path / "high.png")
  for image in data.picture_folder(tmp_path, size=8).arrays["image"]:
    assert (image == 200).all()
  small = data.picture_folder(tmp_path, size=4).arrays["image"]
  assert small.shape == (2, 4, 4, 3)
  assert abs(small[:, :, 1:3].astype(int) - 200).max() <= 30  # antialiased: the borders of the stripe shine through


def test_pictures_of_the_right_size_keep_their_pixels(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
  Image.fromarray(picture).save(tmp_path / "a.png")
  np.testing.assert_array_equal(data.picture_folder(tmp_path, size=8).arrays["image"][0], picture)


def test_grey_and_colour(tmp_path):
  save(tmp_path / "a.png", (10, 200, 30))
  assert data.picture_folder(tmp_path, size=8, channels=3).arrays["image"][0, 0, 0].tolist() == [10, 200, 30]
  luma = round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)
  assert data.picture_folder(tmp_path, size=8, channels=1).arrays["image"][0, 0, 0].tolist() == [luma]


def test_transparency_is_white_and_16_bits_are_scaled(tmp_path):
  save(tmp_path / "a.png", (255, 0, 0, 0), mode="RGBA")
  Image.fromarray(np.full((8, 8), 0x80FF, np.uint16)).save(tmp_path / "b.png")
  save(tmp_path / "c.png", 1, mode="1")
  assert levels(data.picture_folder(tmp_path, size=8, channels=1)) == [255, 0x80, 255]


def test_cameras_that_were_turned(tmp_path):
  """EXIF orientation 6: the stored picture is to be turned a quarter clockwise, so its left becomes the top."""
  picture = np.zeros((8, 8, 3), np.uint8)
  picture[:, :4] = 255
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
  image = data.picture_folder(tmp_path, size=8).arrays["image"][0]
  assert (image[:4] == 255).all()
  assert (image[4:] == 0).all()


def test_links_are_followed_and_loops_end(tmp_path):
  save(tmp_path / "elsewhere" / "a.png", (5,) * 3)
  root = tmp_path / "root"
  save(root / "cat" / "b.png", (6,) * 3)
  (root / "dog").symlink_to(tmp_path / "elsewhere")
  (root / "cat" / "up").symlink_to(root)
  (root / "cat" / "self").symlink_to(root / "cat")
  found = data.picture_folder(root, size=8)
  assert sorted(levels(found)) == [5, 6]


def test_hostile_and_foreign_names(tmp_path):
  names = ["a b.png", "new\nline.png", "quote'\".PNG", "-rf.png", "ünïcödé.jpg", "%s{0}.png", "dots..png"]
  for name in names:
    save(tmp_path / name)
  (tmp_path / "notes.txt").write_text("not a picture")
  (tmp_path / ".hidden.png").write_text("not a picture")
  save(tmp_path / ".cache" / "a.png")
  os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
  train, test = (data.picture_folder(tmp_path, split, size=8, channels=1) for split in ("train", "train"))
  assert len(train) == len(names)
  (tmp_path / "new\nline.png").write_bytes(b"broken")
  with pytest.raises(UserError) as error:
    data.picture_folder(tmp_path, size=8)
  assert "\n" not in str(error.value)
  assert "line.png" in str(error.value)


def png(width: int, height: int, body: bytes) -> bytes:
  chunk = lambda kind, payload: struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
  header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


WHOLE = png(8, 8, b"\0" + bytes(8) * 8 + bytes(7))
BROKEN = {
  "empty": b"",
  "text": b"this is no picture",
  "cut": WHOLE[: len(WHOLE) // 2],
  "bomb": png(30_000, 30_000, bytes(1000)),
  "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
}


@pytest.mark.filterwarnings("error")  # Pillow only warns of bombs of a middle size
@pytest.mark.parametrize("kind", BROKEN)
def test_the_unreadable_picture_is_named(classes, kind):
  (classes / "cat" / "broken.png").write_bytes(BROKEN[kind])
  with pytest.raises(UserError, match=r"cat.broken\.png"):
    data.picture_folder(classes, size=8)


def test_a_bomb_below_what_pillow_refuses(tmp_path):
  """A whole picture of 67.2 million pixels, in 65 kB."""
  (tmp_path / "bomb.png").write_bytes(png(8_200, 8_200, bytes(8_200 * 8_201)))
  with pytest.raises(UserError, match="8200 x 8200"):
    data.picture_folder(tmp_path, size=8)


def test_no_outside_program_reads_a_picture(tmp_path):
  """PostScript is not even recognised: Pillow would hand it to Ghostscript."""
  (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
  with pytest.raises(UserError, match="cannot identify"):
    data.picture_folder(tmp_path, size=8)


def test_a_broken_link_is_named(classes):
  (classes / "cat" / "broken.png").symlink_to(classes / "gone.png")
  with pytest.raises(UserError, match=r"cat.broken\.png"):
    data.picture_folder(classes, size=8)


def test_folders_that_are_none(tmp_path):
  file = tmp_path / "file.png"
  save(file)
  (tmp_path / "empty").mkdir()
  for path, words in ((file, "not a folder"), (tmp_path / "gone", "missing"), (tmp_path / "empty", "no pictures")):
    with pytest.raises(UserError, match=words):
      data.picture_folder(path, size=8)
  with pytest.raises(UserError, match="2 channels"):
    data.picture_folder(tmp_path, size=8, channels=2)
  with pytest.raises(UserError, match="size 0"):
    data.picture_folder(tmp_path, size=0)


def test_what_does_not_fit_stays_on_disk_and_is_the_same(classes):
  memory, disk = data.picture_folder(classes, size=8), data.picture_folder(classes, size=8, budget=100)
  assert isinstance(disk, data.Large)
  for (one, valid), (other, _) in zip(data.epoch(memory, 5), data.epoch(disk, 5)):
    assert valid.any()
    np.testing.assert_array_equal(one["image"], other["image"])
    np.testing.assert_array_equal(one["label"], other["label"])
  assert data.batches(disk, 4, 0)(3)["image"].shape == (4, 8, 8, 3)
