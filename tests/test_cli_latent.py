"""`gm-jax latent` as a user sees it."""

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
  """A GAN, a run that is none, and what says that it is a GAN of points, and one whose data had no labels."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name in ("played", "coins"):
    assert main(["train", name, "--run", str(place / name)]) == 0
  config = json.loads((place / "played/config.json").read_text())
  points = {**config["shapes"], "image": [[32, 1, 1, 2], "float32"]}
  for name, changed in (("points", {"shapes": points}), ("bare", {"num_labels": None})):
    (place / name).mkdir()
    (place / name / "config.json").write_text(json.dumps({**config, **changed}))
  return place


def worked(capfd, task, *options, num=2):
  """(the array, the report)."""
  common = "--task", task, "--num", str(num), "--each", "3", "--steps", "60", "--out", "worked.npy", "--json"
  report = json.loads(printed(capfd, "latent", "played", *common, *options))
  array = np.load("worked.npy")
  assert (report["task"], report["shape"]) == (task, [*array.shape])
  assert {"experiment": "played", "step": 2, "num": num}.items() <= report["protocol"].items()
  return array, report


def drawn(capfd, num):
  printed(capfd, "sample", "played", "--num", str(num), "--out", "drawn.npy")
  return np.load("drawn.npy")


def levels(ours, theirs):
  """The largest difference, in levels of grey."""
  return np.abs(ours.astype(int) - theirs).max()


def test_ways_lead_from_sample_to_sample(place, capfd):
  found, _ = worked(capfd, "interpolate")
  samples = drawn(capfd, 4)
  assert found.shape == (2, 3, 8, 8, 1)
  assert levels(found[:, 0], samples[:2]) <= 1
  assert levels(found[:, -1], samples[2:]) <= 1
  assert levels(found[:, 1], found[:, 0]) > 10 < levels(found[:, 1], found[:, -1])


def test_more_of_the_attribute_is_more_ink(place, capfd):
  found, report = worked(capfd, "arithmetic", "--amount", "1.5")
  samples = drawn(capfd, 2000)
  ink = samples.reshape(2000, -1).mean(1)
  less = samples[ink <= np.median(ink)][:2]
  assert report["amounts"] == [0, 0.75, 1.5]
  assert levels(found[:, 0], less) <= 1
  assert (np.diff(found.mean((2, 3, 4)), axis=1) > 2).all()
  assert report["with_attribute"] == [0, *(found[:, 1:].mean((2, 3, 4)) > np.median(ink)).mean(0)]
  assert report["protocol"]["attribute"] == "ink"


def test_a_class_is_an_attribute_too(place, capfd):
  found, report = worked(capfd, "arithmetic", "--attribute", "3", num=20)
  assert report["with_attribute"][0] == 0
  assert report["with_attribute"][2] > 0.3
  other, _ = worked(capfd, "arithmetic", "--attribute", "0", num=20)
  assert (other[:, -1].mean(0) != found[:, -1].mean(0)).any()


def test_images_that_the_generator_made_are_found(place, capfd):
  own = drawn(capfd, 2)
  np.save("own.npy", own)
  z, report = worked(capfd, "project", "--images", "own.npy", "--steps", "300")
  assert z.shape == (2, 6)
  assert z.dtype == np.float32
  assert report["metrics"]["psnr"]["mean"] > 45
  assert (report["metrics"]["psnr"]["unit"], report["metrics"]["psnr"]["count"]) == ("dB", 2)
  assert "own.npy" in report["protocol"]["data"]


def test_real_images_are_found_and_changed(place, capfd):
  _, projected = worked(capfd, "project")
  found, report = worked(capfd, "edit", "--amount", "1")
  assert report["metrics"] == projected["metrics"]
  assert report["amounts"] == [-1, 0, 1]
  assert (np.diff(found.mean((2, 3, 4)), axis=1) > 0).all()
  psnr = quality.psnr(found[:, 1], DIGITS[:2])  # nothing added: the projection itself
  assert float(psnr.mean()) == pytest.approx(projected["metrics"]["psnr"]["mean"], abs=0.1)


def test_an_encoder_guesses_and_descent_does_better(place, capfd):
  few = "--encoder", "--encoder-steps", "1000"
  _, report = worked(capfd, "project", *few)
  guess, found = (report["metrics"][name]["mean"] for name in ("psnr_encoder", "psnr"))
  assert found > guess
  z, alone = worked(capfd, "project", *few, "--restarts", "0", "--steps", "0")
  assert alone["metrics"]["psnr"] == alone["metrics"]["psnr_encoder"] == report["metrics"]["psnr_encoder"]
  grey = float(quality.psnr(np.full_like(DIGITS[:2], round(DIGITS.mean())), DIGITS[:2]).mean())
  assert guess > grey + 1


def test_an_image_is_found_alone_or_among_others(place, capfd):
  pair, _ = worked(capfd, "project")
  one, _ = worked(capfd, "project", num=1)
  np.testing.assert_array_equal(one, pair[:1])
  again, _ = worked(capfd, "project", "--seed", "1")
  assert (again != pair).any()


def test_the_picture_and_the_lines(place, capfd):
  out = printed(capfd, "latent", "played", "--task", "edit", "--num", "3", "--each", "2", "--steps", "5")
  assert out.startswith("edit: played/pictures/edit.png")
  assert "share with the attribute" in out
  assert "psnr" in out
  picture = np.asarray(Image.open("played/pictures/edit.png").convert("L"))
  scale = picture.shape[1] // (4 * 9 + 1)  # the image, what it was projected on, two amounts
  picture = picture[scale // 2 :: scale, scale // 2 :: scale][1:, 1:].reshape(3, 9, 4, 9).swapaxes(1, 2)[:, :, :8, :8]
  np.testing.assert_array_equal(picture[:, 0], DIGITS[:3, ..., 0])
  for task in ("interpolate", "arithmetic"):
    assert f"{task}: played/pictures/{task}.png" in printed(capfd, "latent", "played", "--task", task, "--num", "2")


REFUSED = {  # command: what the one line says
  "latent coins --task project": "coins has no `latents`; dcgan_mnist has",
  "latent nowhere --task project": "nowhere",
  "latent points --task interpolate": "points, not images",
  "latent played": "--task",
  "latent played --task projct": "project",
  "latent played --task interpolate --num 0": "--num is 0",
  "latent played --task interpolate --each 1": "--each is 1",
  "latent played --task interpolate --seed -1": "--seed is -1",
  "latent played --task project --restarts -1": "--restarts is -1",
  "latent played --task project --restarts 0": "--restarts is 0",
  "latent played --task project --steps -1": "--steps is -1",
  "latent played --task project --encoder-steps 0": "--encoder-steps is 0",
  "latent played --task project --split tset": "did you mean test",
  "latent played --task project --images wide.npy": "(8, 8, 1), not (8, 9, 1)",
  "latent played --task edit --amount 0": "--amount is 0",
  "latent played --task edit --amount nan": "--amount is nan",
  "latent played --task edit --attribute thick": "'thick': take ink",
  "latent played --task arithmetic --attribute 10": "--attribute is 10",
  "latent bare --task arithmetic --attribute 3": "have no labels; take ink",
  "latent played --task edit --out edited.gif": ".npy",
  "latent played --task edit --out nowhere/edited.npy": "nowhere",
}


@pytest.mark.parametrize("command", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(place, capfd, command):
  np.save("wide.npy", np.zeros((2, 8, 9, 1), np.uint8))
  before = sorted(place.rglob("*"))
  capfd.readouterr()
  assert main(command.split()) == 2
  out, err = capfd.readouterr()
  assert not out
  assert err.count("\n") == 1
  assert err.startswith("gm-jax: ")
  assert REFUSED[command] in err
  assert sorted(place.rglob("*")) == before
