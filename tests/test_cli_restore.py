"""`gm-jax restore` as a user sees it."""

import json

import numpy as np
import pytest
from PIL import Image

from gm_jax import data
from gm_jax.cli import main
from tests import stand_ins
from tests.stand_ins import printed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run that restores, and one that does not."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name in ("erased", "coins"):
    assert main(["train", name, "--run", str(place / name)]) == 0
  return place


def test_the_report_the_table_and_the_picture(place, capfd):
  restore = lambda *options: json.loads(printed(capfd, "restore", "erased", "--num", "50", *options, "--json"))["runs"][0]
  report = restore()
  assert list(report["methods"]) == ["corrupted", "median", "model"]
  for scores in report["methods"].values():
    assert scores["psnr"]["count"] == scores["ssim"]["count"] == 50
    assert scores["psnr"]["unit"] == "dB"
  assert {"data": "digits", "split": "test", "num": 50, "seed": 0, "step": 2}.items() <= report["protocol"].items()
  assert report["file"] == "erased/pictures/restored.png"
  picture = np.asarray(Image.open("erased/pictures/restored.png").convert("L"))
  scale = picture.shape[1] // (12 * 9 + 1)
  picture = picture[scale // 2 :: scale, scale // 2 :: scale]
  assert picture.shape == (4 * 9 + 1, 12 * 9 + 1)
  np.testing.assert_array_equal(picture[1:9, 1:9], data.digits("test").arrays["image"][0, :, :, 0])

  assert restore() == report  # the same seed
  other = restore("--seed", "1")
  assert other["methods"]["corrupted"] != report["methods"]["corrupted"]

  out = printed(capfd, "restore", "erased", "--num", "50", "--out", "own.png")
  assert f"{report['methods']['median']['psnr']['mean']:.3f}" in out
  assert "own.png: lines in the order original, corrupted, median, model" in out


def test_several_runs_are_one_table(place, capfd):
  (place / "again").symlink_to(place / "erased")
  out = printed(capfd, "restore", "erased", "again", "--num", "5")
  for run in ("erased", "again"):
    assert [line.split()[1] for line in out.splitlines() if line.startswith(f"{run} ")] == ["corrupted", "median", "model"]


REFUSED = {  # command: what the one line says
  "restore coins": "was not trained to",
  "restore nowhere": "nowhere",
  "restore erased --num 0": "--num is 0",
  "restore erased --seed -1": "--seed is -1",
  "restore erased --split tset": "did you mean test",
  "restore erased --out own.npy": ".png",
  "restore erased erased --out own.png": "there are 2",
  "restore erased coins": "was not trained to",
  "restore erased --out nowhere/own.png": "nowhere",
}


@pytest.mark.parametrize("command", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(place, capfd, command):
  before = sorted(place.rglob("*"))
  capfd.readouterr()
  assert main(command.split()) == 2
  out, err = capfd.readouterr()
  assert not out
  assert err.count("\n") == 1
  assert REFUSED[command] in err
  assert sorted(place.rglob("*")) == before
