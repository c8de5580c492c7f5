"""`gm-jax compress` and `gm-jax decompress` as a user sees them."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from gm_jax import data
from gm_jax.cli import main
from tests import stand_ins
from tests.stand_ins import printed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Two runs that can compress, a third whose data change, and one that cannot."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name, *options in (["coins"], ["coins", "--weight", "3"], ["coins", "--dynamic"], ["tiny"]):
    run = "-".join([name, *(option.strip("-") for option in options[:1])])
    assert main(["train", name, "--run", str(place / run), *options]) == 0
  return place


def digits(split="test"):
  return data.static_binarization(data.digits(split)).arrays["image"]


def test_a_split_to_a_file_and_back_in_another_process(place, capfd):
  report = json.loads(printed(capfd, "compress", "coins", "--out", "digits.gmz", "--json"))
  arguments = "decompress", "coins", "digits.gmz", "--out", "digits.npy", "--json"
  process = stand_ins.gm_jax(*arguments, env=stand_ins.environment())
  out, err = process.communicate(timeout=120)
  assert (process.returncode, err) == (0, "")
  assert {"count": 299, "shape": [299, 8, 8, 1]}.items() <= json.loads(out).items()
  np.testing.assert_array_equal(np.load("digits.npy"), digits())

  size = (place / "digits.gmz").stat().st_size
  assert (report["count"], report["bytes"]) == (299, size)
  per_image = report["bits_per_image"]
  assert per_image["file"] == pytest.approx(8 * size / 299)
  evaluated = json.loads(printed(capfd, "evaluate", "coins", "--json"))["metrics"]["nll"]["mean"]
  assert per_image["likelihood"] == pytest.approx(evaluated / np.log(2), rel=1e-5)
  assert report["overhead"] == pytest.approx(per_image["file"] / per_image["likelihood"] - 1)
  assert report["bits_per_dim"]["file"] == pytest.approx(per_image["file"] / 64)
  assert list(per_image) == ["file", "likelihood", "PNG", "PNG on sheets", "WebP", "WebP on sheets"]
  assert per_image["file"] < min(bits for name, bits in per_image.items() if name not in ("file", "likelihood"))
  assert report["overhead"] < 0.01 + 150 * 8 / (299 * per_image["likelihood"])
  assert {"data": "digits", "split": "test", "binarization": "static", "step": 2}.items() <= report["protocol"].items()


def test_the_table_and_a_picture(place, capfd):
  out = printed(capfd, "compress", "coins", "--out", "few.gmz", "--split", "train", "--num", "9", "--batch-size", "4")
  size = (place / "few.gmz").stat().st_size
  assert out.startswith(f"9 images in {size:,} bytes")
  rows = dict(re.findall(r"^(file|likelihood|PNG on sheets) +([\d.]+)", out, re.MULTILINE))
  assert float(rows["file"]) == pytest.approx(8 * size / 9, abs=0.01)
  assert rows.keys() == {"file", "likelihood", "PNG on sheets"}
  assert "protocol: data digits, split train" in out
  assert "9 images, " in printed(capfd, "decompress", "coins", "few.gmz", "--out", "few.png")
  pixels = np.asarray(Image.open("few.png").convert("L"))[4::9, 4::9]  # small pictures are enlarged, this one nine times
  for index, image in enumerate(digits("train")[:9]):  # a grid of three by three with a line around each
    top, left = 1 + index // 3 * 9, 1 + index % 3 * 9
    np.testing.assert_array_equal(pixels[top : top + 8, left : left + 8], image[:, :, 0])


def test_images_of_ones_own(place, capfd):
  images = np.random.default_rng(0).integers(0, 2, (5, 8, 8, 1)).astype(np.uint8) * 255
  np.save("own.npy", images)
  printed(capfd, "compress", "coins", "--images", "own.npy", "--out", "own.gmz")
  printed(capfd, "decompress", "coins", "own.gmz", "--out", "back.npy")
  np.testing.assert_array_equal(np.load("back.npy"), images)


def test_data_that_are_drawn_anew_are_compressed_as_they_are_scored(place, capfd):
  report = json.loads(printed(capfd, "compress", "coins-dynamic", "--out", "drawn.gmz", "--json"))
  evaluated = json.loads(printed(capfd, "evaluate", "coins-dynamic", "--json"))["metrics"]["nll"]["mean"]
  assert report["bits_per_image"]["likelihood"] == pytest.approx(evaluated / np.log(2), rel=1e-5)
  printed(capfd, "decompress", "coins-dynamic", "drawn.gmz", "--out", "drawn.npy")
  assert 0 < (np.load("drawn.npy") != digits()).mean() < 0.5


REFUSED = {  # command: what the one line says
  "compress tiny --out new.gmz": "networks learnt by counting",
  "compress nowhere --out new.gmz": "nowhere",
  "compress coins": "--out",
  "compress coins --out nowhere/new.gmz": "nowhere",
  "compress coins --out here": "directory",
  "compress coins --out new.gmz --split tset": "did you mean test",
  "compress coins --out new.gmz --num 0": "--num is 0",
  "compress coins --out new.gmz --batch-size 0": "--batch-size is 0",
  "compress coins --out new.gmz --images nowhere.npy": "nowhere.npy",
  "compress coins --out new.gmz --images good.gmz": "good.gmz",
  "compress coins --out new.gmz --images points.npy": "uint8",
  "compress coins --out new.gmz --images wide.npy": "(8, 9, 1)",
  "compress coins --out new.gmz --images grey.npy": "image 2 has other levels than the 2",
  "decompress coins good.gmz": "--out",
  "decompress coins good.gmz --out new.gif": ".npy",
  "decompress coins good.gmz --out nowhere/new.npy": "nowhere",
  "decompress coins nowhere.gmz --out new.npy": "nowhere.gmz",
  "decompress coins here --out new.npy": "here",
  "decompress tiny good.gmz --out new.npy": "tiny",
  "decompress coins-weight good.gmz --out new.npy": "good.gmz: made by another model",
  "decompress coins short.gmz --out new.npy": "short.gmz: damaged",
  "decompress coins flipped.gmz --out new.npy": "flipped.gmz: damaged",
  "decompress coins later.gmz --out new.npy": "later.gmz: of version 2",
  "decompress coins wide.npy --out new.npy": "wide.npy: not a file of compressed images",
  "decompress coins empty.gmz --out new.npy": "empty.gmz: not a file",
}


def test_what_is_refused_is_told_in_one_line_and_nothing_is_written(place, capfd):
  (place / "here").mkdir()
  printed(capfd, "compress", "coins", "--num", "10", "--out", "good.gmz")
  content = (place / "good.gmz").read_bytes()
  (place / "short.gmz").write_bytes(content[:-4])
  (place / "flipped.gmz").write_bytes(content[:-9] + bytes([content[-9] ^ 16]) + content[-8:])
  (place / "later.gmz").write_bytes(content[:3] + b"\x02" + content[4:])
  (place / "empty.gmz").write_bytes(b"")
  np.save("points.npy", np.zeros((3, 8, 8, 1)))
  np.save("wide.npy", np.zeros((3, 8, 9, 1), np.uint8))
  np.save("grey.npy", np.stack([np.full((8, 8, 1), level, np.uint8) for level in (0, 255, 128)]))
  before = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
  for command, words in REFUSED.items():
    capfd.readouterr()
    assert main(command.split()) == 2, command
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1), command
    assert words in err, command
    assert {path: path.read_bytes() for path in place.iterdir() if path.is_file()} == before, command


def test_the_configuration_is_part_of_the_model_and_where_data_lie_is_not(place, capfd):
  shutil.copytree("coins", "copy")
  printed(capfd, "compress", "coins", "--num", "3", "--out", "three.gmz")
  config = json.loads((place / "copy/config.json").read_text())
  config["config"] |= {"data_dir": "elsewhere", "strategy": "single", "log_every": 7}
  (place / "copy/config.json").write_text(json.dumps(config))
  printed(capfd, "decompress", "copy", "three.gmz", "--out", "three.npy")
  config["config"]["weight"] = 1.5
  (place / "copy/config.json").write_text(json.dumps(config))
  assert main(["decompress", "copy", "three.gmz", "--out", "other.npy"]) == 2
  assert "another model" in capfd.readouterr().err
