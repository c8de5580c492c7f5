"""`gm-jax probe` as a user sees it."""

import json

import numpy as np
import pytest

from gm_jax import data
from gm_jax.cli import main
from gm_jax.metrics import probe
from tests import stand_ins
from tests.stand_ins import printed


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A run with features, which are the pixels' halves, and one without."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name in ("erased", "coins"):
    assert main(["train", name, "--run", str(place / name)]) == 0
  return place


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
  monkeypatch.chdir(place)


def test_a_line_for_each_number_of_labels(capfd):
  report = json.loads(printed(capfd, "probe", "erased", "--labels", "60", "1498", "--json"))
  assert report["dimensions"] == {"features": 32, "pixels": 64}
  train, test = (data.digits(split).arrays for split in ("train", "test"))
  flat = lambda arrays: arrays["image"].reshape(len(arrays["image"]), -1) / np.float32(255)
  for row, number in zip(report["rows"], (60, 1498)):
    assert row["labels"] == number
    few = flat(train)[:number], train["label"][:number]
    expected = probe.accuracy(few, (flat(test), test["label"]), 10, penalty=1e-3)
    assert row["pixels"]["mean"] == pytest.approx(expected, abs=1e-6)
    assert row["pixels"]["count"] == 299
    half = [(values[:, :32], labels) for values, labels in (few, (flat(test), test["label"]))]
    assert row["features"]["mean"] == pytest.approx(probe.accuracy(*half, 10, penalty=1e-3), abs=1e-6)
  assert report["rows"][1]["pixels"]["mean"] > report["rows"][0]["pixels"]["mean"]

  out = printed(capfd, "probe", "erased", "--labels", "60")
  assert f"{report['rows'][0]['features']['mean']:.4f}" in out


@pytest.mark.parametrize(
  ("command", "words"),
  [
    ("probe coins", "has no features"),
    ("probe nowhere", "nowhere"),
    ("probe erased --labels 0", "--labels is 0"),
    ("probe erased --labels", "--labels"),
  ],
)
def test_bad_input_is_one_line(capfd, command, words):
  capfd.readouterr()
  assert main(command.split()) == 2
  out, err = capfd.readouterr()
  assert (out, err.count("\n")) == ("", 1)
  assert words in err
