"""`gm-jax complete` as a user sees it."""

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
  """A run that tells pixels in raster order, one in any order, and one that has no conditionals."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name, *options in (["coins"], ["tiny"], ["made_digits", "--steps", "2", "--hidden", "8", "--num-orders", "2"]):
    assert main(["train", name, "--run", str(place / name), *options]) == 0
  return place


def digits():
  return data.static_binarization(data.digits("test")).arrays["image"]


def test_halves_of_test_images_are_kept_and_the_others_scored(place, capfd):
  command = "complete", "coins", "--num", "6", "--each", "3", "--out", "filled.npy", "--json"
  report = json.loads(printed(capfd, *command))
  filled = np.load("filled.npy")
  assert filled.shape == (3, 6, 8, 8, 1)
  np.testing.assert_array_equal(filled[:, :, :4], digits()[None, :6, :4].repeat(3, 0))
  assert (filled[0] != filled[1]).any()
  printed(capfd, *command)
  np.testing.assert_array_equal(np.load("filled.npy"), filled)  # the same seed

  assert report["hidden_dims"] == 32
  assert report["metrics"]["hole"]["mean"] == pytest.approx(np.mean(report["nats"]))
  assert (report["metrics"]["hole"]["count"], report["metrics"]["hole"]["unit"]) == (6, "nats")
  assert {"data": "digits", "split": "test", "known": "top", "step": 2}.items() <= report["protocol"].items()
  # All of an image and none of it: the likelihood, and nothing.
  np.save("none.npy", np.zeros((8, 8), bool))
  whole = json.loads(printed(capfd, "complete", "coins", "--known", "none.npy", "--num", "299", "--each", "1", "--json"))
  evaluated = json.loads(printed(capfd, "evaluate", "coins", "--json"))["metrics"]["nll"]["mean"]
  assert whole["metrics"]["hole"]["mean"] == pytest.approx(evaluated, rel=1e-5)


def test_the_picture_and_the_line(place, capfd):
  out = printed(capfd, "complete", "made_digits", "--known", "scattered", "--num", "3", "--each", "2", "--out", "filled.png")
  assert out.startswith("2 completions of each of 3 images, ")
  assert "known scattered" in out
  assert " nats  (3 examples)" in out
  picture = np.asarray(Image.open("filled.png").convert("L"))  # small pictures are enlarged by a whole factor
  scale = picture.shape[1] // 28
  picture = picture[scale // 2 :: scale, scale // 2 :: scale]
  assert picture.shape == (4 * 9 + 1, 3 * 9 + 1)
  np.testing.assert_array_equal(picture[1:9, 1:9], digits()[0, :, :, 0])


def test_images_of_ones_own(place, capfd):
  np.save("own.npy", 255 - digits()[:2])
  printed(capfd, "complete", "coins", "--images", "own.npy", "--each", "1", "--out", "filled.npy")
  np.testing.assert_array_equal(np.load("filled.npy")[0, :, :4], 255 - digits()[:2, :4])
  assert main(["complete", "coins"]) == 0
  assert (place / "coins/pictures/completions.png").is_file()


REFUSED = {  # command: what the one line says
  "complete tiny": "p(hole | rest)",
  "complete nowhere": "nowhere",
  "complete coins --known middle": "'middle'; there are: top",
  "complete coins --known left": "trained in any order",
  "complete coins --known nowhere.npy": "nowhere.npy",
  "complete coins --known wide.npy": "take bool (8, 8)",
  "complete coins --known several.npz.npy": "several arrays",
  "complete coins --num 0": "--num is 0",
  "complete coins --each 0": "--each is 0",
  "complete coins --seed -1": "--seed is -1",
  "complete coins --split tset": "did you mean test",
  "complete coins --images wide.npy": "uint8",
  "complete coins --out filled.gif": ".npy",
  "complete coins --out nowhere/filled.npy": "nowhere",
}


@pytest.mark.parametrize("command", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(place, capfd, command):
  np.save("wide.npy", np.zeros((8, 9), bool))
  with open("several.npz.npy", "wb") as file:
    np.savez(file, one=np.zeros(1), two=np.zeros(2))
  before = sorted(place.rglob("*"))
  capfd.readouterr()
  assert main(command.split()) == 2
  out, err = capfd.readouterr()
  assert not out
  assert err.count("\n") == 1
  assert err.startswith("gm-jax: ")
  assert REFUSED[command] in err
  assert sorted(place.rglob("*")) == before
