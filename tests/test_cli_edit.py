"""`gm-jax edit` as a user sees it."""

import json

import numpy as np
import pytest
from PIL import Image

from gm_jax import data
from gm_jax.cli import main
from gm_jax.metrics import quality
from tests import stand_ins
from tests.stand_ins import printed

DIGITS = data.digits("test").arrays["image"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run with labels, one without, one that is no diffusion model, and what says that it is one of points."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for run, name, *options in (["diffused"] * 2, ["blind", "diffused", "--classes", "0"], ["coins"] * 2):
    assert main(["train", name, "--run", str(place / run), *options]) == 0
  (place / "points").mkdir()
  config = json.loads((place / "diffused/config.json").read_text())
  config["shapes"]["image"] = [[64, 1, 1, 2], "float32"]
  (place / "points/config.json").write_text(json.dumps(config))
  return place


def edited(capfd, *options, run="diffused"):
  """(the array, the report)."""
  common = "--num", "3", "--each", "2", "--steps", "6", "--jump", "2", "--out", "edited.npy", "--json"
  report = json.loads(printed(capfd, "edit", run, *common, *options))
  array = np.load("edited.npy")
  assert report["shape"] == [*array.shape]
  assert {"data": "digits", "split": "test", "step": 2, "num": 3, "steps": 6, "seed": 0}.items() <= report["protocol"].items()
  return array, report


def test_inpainting_keeps_the_known_half_and_draws_the_other(place, capfd):
  found, report = edited(capfd, "--task", "inpaint", "--known", "left", "--resamples", "2")
  assert found.shape == (2, 3, 8, 8, 1)
  np.testing.assert_array_equal(found[..., :4, :], DIGITS[None, :3, :, :4].repeat(2, 0))
  assert (found[0] != found[1]).any()
  assert (report["task"], report["protocol"]["known"], report["protocol"]["resamples"]) == ("inpaint", "left", 2)
  again, _ = edited(capfd, "--task", "inpaint", "--known", "left", "--resamples", "2")
  np.testing.assert_array_equal(again, found)  # the same seed


def test_outpainting_keeps_the_image_in_its_place(place, capfd):
  found, report = edited(capfd, "--task", "outpaint", "--margins", "0", "3", "5", "0", "--resamples", "1")
  assert found.shape == (2, 3, 11, 13, 1)
  np.testing.assert_array_equal(found[:, :, :8, 5:], DIGITS[None, :3].repeat(2, 0))
  assert report["protocol"]["margins"] == [0, 3, 5, 0]


def test_strength_0_is_the_image_and_a_label_is_told(place, capfd):
  same, _ = edited(capfd, "--task", "image-to-image", "--strength", "0")
  np.testing.assert_array_equal(same, DIGITS[None, :3].repeat(2, 0))
  one, _ = edited(capfd, "--task", "image-to-image", "--label", "1")
  other, report = edited(capfd, "--task", "image-to-image", "--label", "2")
  assert (one != other).any()
  assert report["protocol"]["label"] == 2
  assert (one[0] != one[1]).any()


def test_noise_of_which_the_images_come_back(place, capfd):
  latents, report = edited(capfd, "--task", "invert")
  assert latents.shape == (3, 8, 8, 1)
  assert latents.dtype == np.float32
  score = report["metrics"]["psnr"]
  assert (score["unit"], score["count"]) == ("dB", 3)
  picture = pixels("invert", 3, "--steps", "6")
  np.testing.assert_array_equal(picture[0], DIGITS[:3, ..., 0])
  rebuilt = quality.psnr(picture[2][..., None], DIGITS[:3])
  assert score["mean"] == pytest.approx(float(rebuilt.mean()), rel=1e-4)


def apart(ours, theirs):
  return np.abs(ours.astype(int) - theirs)


def test_interpolation_is_a_line_from_each_image_to_another(place, capfd):
  found, _ = edited(capfd, "--task", "interpolate", "--each", "3")
  assert found.shape == (3, 3, 8, 8, 1)
  first, second = DIGITS[:3], DIGITS[3:6]
  assert apart(found[0], first).mean() < apart(found[0], second).mean()
  assert apart(found[2], second).mean() < apart(found[2], first).mean()
  assert apart(found[1], found[0]).mean() < apart(found[2], found[0]).mean()


def test_mixed_part_of_the_way_to_noise_the_ends_are_the_edited_images(place, capfd):
  options = "--strength", "0.5", "--each", "2"
  mixed, report = edited(capfd, "--task", "interpolate", *options)
  assert report["protocol"]["strength"] == 0.5
  for end, first in ((0, 0), (1, 3)):
    np.save("own.npy", DIGITS[first : first + 3])
    own = "--task", "image-to-image", "--num", "3", "--steps", "6", "--images", "own.npy", "--out", "o.npy"
    printed(capfd, "edit", "diffused", *own, *options)
    assert apart(np.load("o.npy")[0], mixed[end]).max() <= 1


def pixels(task, columns, *options):
  """The picture that a command draws, cut into its images: [lines, columns, 8, 8]."""
  assert main(["edit", "diffused", "--task", task, "--num", "3", *options]) == 0
  picture = np.asarray(Image.open(f"diffused/pictures/{task}.png").convert("L"))
  scale = picture.shape[1] // (columns * 9 + 1)
  picture = picture[scale // 2 :: scale, scale // 2 :: scale][1:, 1:]
  return picture.reshape(-1, 9, columns, 9).swapaxes(1, 2)[:, :, :8, :8]


def test_the_picture_and_the_lines(place, capfd):
  lines = pixels("inpaint", 3, "--each", "2", "--steps", "5", "--jump", "2")
  assert len(lines) == 4
  np.testing.assert_array_equal(lines[0], DIGITS[:3, ..., 0])
  assert (lines[1][:, 4:] == 128).all()
  np.testing.assert_array_equal(lines[2][:, :4], DIGITS[:3, :4, :, 0])
  out = capfd.readouterr().out
  assert out.startswith("inpaint: diffused/pictures/inpaint.png")
  assert "known top" in out


def test_images_of_ones_own(place, capfd):
  np.save("own.npy", 255 - DIGITS[:2])
  own = "--images", "own.npy", "--steps", "3", "--jump", "1", "--out", "o.npy"
  out = printed(capfd, "edit", "blind", "--task", "inpaint", *own)
  assert "own.npy" in out
  np.testing.assert_array_equal(np.load("o.npy")[0, :, :4], 255 - DIGITS[:2, :4])


REFUSED = {  # command: what the one line says
  "edit coins --task invert": "coins is no diffusion model",
  "edit nowhere --task invert": "nowhere",
  "edit points --task invert": "points, not images",
  "edit diffused": "--task",
  "edit diffused --task inpant": "inpaint",
  "edit diffused --task inpaint --known middle": "'middle'; there are: top",
  "edit diffused --task inpaint --known wide.npy": "take bool (8, 8)",
  "edit diffused --task inpaint --jump 0": "--jump is 0",
  "edit diffused --task inpaint --jump 50": "--jump is 50 of --steps 50",
  "edit diffused --task inpaint --resamples 0": "--resamples is 0",
  "edit diffused --task outpaint --margins 0 0 -1 0": "--margins is -1",
  "edit diffused --task outpaint --margins 0 0": "--margins",
  "edit diffused --task image-to-image --strength 1.5": "--strength is 1.5",
  "edit diffused --task image-to-image --strength nan": "--strength is nan",
  "edit diffused --task interpolate --strength 0": "above 0",
  "edit diffused --task interpolate --each 1": "--each is 1",
  "edit diffused --task interpolate --images one.npy": "two images",
  "edit diffused --task invert --label 10": "--label is 10",
  "edit blind --task invert --label 0": "was not told any labels",
  "edit diffused --task invert --num 0": "--num is 0",
  "edit diffused --task invert --each 0": "--each is 0",
  "edit diffused --task invert --steps 1": "--steps is 1",
  "edit diffused --task invert --seed -1": "--seed is -1",
  "edit diffused --task invert --split tset": "did you mean test",
  "edit diffused --task invert --images wide.npy": "uint8",
  "edit diffused --task invert --out edited.gif": ".npy",
  "edit diffused --task invert --out nowhere/edited.npy": "nowhere",
}


@pytest.mark.parametrize("command", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(place, capfd, command):
  np.save("wide.npy", np.zeros((8, 9), bool))
  np.save("one.npy", DIGITS[:1])
  before = sorted(place.rglob("*"))
  capfd.readouterr()
  assert main(command.split()) == 2
  out, err = capfd.readouterr()
  assert not out
  assert err.count("\n") == 1
  assert err.startswith("gm-jax: ")
  assert REFUSED[command] in err
  assert sorted(place.rglob("*")) == before
