"""`gm-jax classify` and `gm-jax outliers` as a user sees them, against the same numbers by hand."""

import json
import re
import shutil

import numpy as np
import pytest

from gm_jax import data, evaluation, parallel
from gm_jax.cli import main, opened
from gm_jax.tasks import outliers as scoring
from tests import stand_ins
from tests.stand_ins import printed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A conditional run and one that is not."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  assert main(["train", "classes", "--run", str(place / "classes")]) == 0
  assert main(["train", "tiny", "--run", str(place / "tiny"), "--steps", "100", "--batch-size", "64"]) == 0
  return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
  shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def files(place):
  return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def by_hand(prior):
  """log p(y | x) of naive Bayes with the run's Gaussians, on pixels that are not dequantised but lie amid their bins."""
  _, state = restored("classes")
  fitted = state.classes
  image, label = (data.digits("test").arrays[name] for name in ("image", "label"))
  x = (image.reshape(-1, 1, 64) + 0.5) / 256
  share = 0.1
  variance = (np.asarray(fitted.spread)[:, 0] + share * 0.1) / (1 + share)
  mean = np.asarray(fitted.mean).reshape(10, 64)
  log_joint = np.log(prior) - 0.5 * ((x - mean) ** 2 / variance + np.log(variance)).sum(2)
  return log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True), label


def restored(name):
  run = opened.open_run(name)
  return opened.restore(run, run.module.model(run.config), parallel.single())


def test_classify_is_naive_bayes(place, capfd):
  before = files(place)
  report = json.loads(printed(capfd, "classify", "classes", "--json"))
  assert files(place) == before
  log_posterior, label = by_hand(np.full(10, 0.1))
  correct = log_posterior.argmax(1) == label
  # Dequantisation moves a pixel by half a level of 256, and that turns next to no answer.
  assert abs(report["metrics"]["accuracy"]["mean"] - correct.mean()) <= 2 / len(label)
  loss = -log_posterior[np.arange(len(label)), label].mean()
  assert report["metrics"]["log_loss"]["mean"] == pytest.approx(loss, rel=0.05)
  assert correct.mean() > 0.8
  confusion = np.array(report["confusion"])
  np.testing.assert_array_equal(confusion.sum(1), np.bincount(label))
  assert confusion.trace() / confusion.sum() == pytest.approx(report["metrics"]["accuracy"]["mean"])
  p = report["metrics"]["accuracy"]["mean"]
  assert report["metrics"]["accuracy"]["stderr"] == pytest.approx(np.sqrt(p * (1 - p) / (len(label) - 1)))
  expected = {"data": "digits", "split": "test", "prior": "uniform", "likelihood": "nll", "step": 2, "seed": 0}
  assert expected.items() <= report["protocol"].items()


def test_the_prior_may_be_that_of_the_training_data(place, capfd):
  reports = [printed(capfd, "classify", "classes", "--split", "train", "--json", "--prior", p) for p in ("uniform", "counts")]
  uniform, counts = (json.loads(report)["metrics"]["log_loss"]["mean"] for report in reports)
  label = data.digits("train").arrays["label"]
  # Frequencies differ by a few parts in a hundred, so the posterior hardly moves; that it moves is what is seen.
  assert uniform != counts
  assert abs(uniform - counts) < np.abs(np.log(10 * np.bincount(label) / len(label))).max()


def test_the_table_of_classify(place, capfd):
  out = printed(capfd, "classify", "classes")
  assert re.search(r"^accuracy +0\.\d+ \+- 0\.\d+  \(299 examples\)\n", out)
  assert "protocol: data digits, split test" in out
  lines = out.splitlines()[-11:]
  assert lines[0].split()[-10:] == [*map(str, range(10))]
  counts = [[0 if entry == "." else int(entry) for entry in line.split()[1:]] for line in lines[1:]]
  np.testing.assert_array_equal(np.sum(counts, axis=1), np.bincount(data.digits("test").arrays["label"]))


def test_outliers_of_two_families_in_one_table(place, capfd):
  before = files(place)
  out = printed(capfd, "outliers", "classes", "tiny", "--against", "noise", "rotated")
  assert files(place) == before
  head, *rows = [line for line in out.splitlines() if re.search(r"^(run +by|classes|tiny) ", line)]
  assert re.split(r"  +", head) == ["run", "by", "against", "score", "typicality", "typicality of 10", "ratio"]
  cells = [re.split(r"  +", row) for row in rows]
  assert [row[:3] for row in cells] == [
    ["classes", "nll", "noise"],
    ["classes", "nll", "rotated"],
    ["tiny", "nll_bound", "noise"],
    ["tiny", "nll_bound", "rotated"],
  ]
  assert all(re.fullmatch(r"[01]\.\d{3} \+- 0\.\d{3}", cell) for row in cells for cell in row[3:])
  assert all(float(row[3][:5]) > 0.95 for row in cells[::2]), "noise is easily told"
  assert out.count("protocol: run ") == 2
  assert "data digits, split test" in out


def test_the_areas_are_those_of_the_marginal_likelihood(place, capfd):
  """A conditional run is asked for p(x), the classes summed: by hand from the fitted Gaussians."""
  report = json.loads(printed(capfd, "outliers", "classes", "--against", "rotated", "--json"))
  run = opened.open_run("classes")
  model, (_, state) = run.module.model(run.config), restored("classes")
  images = data.digits("test").arrays["image"]

  def nll(pictures):
    each = []
    for label in range(10):
      dataset = data.from_arrays(pictures, np.full(len(pictures), label))
      how = dict(batch_size=64, seed=0, strategy=parallel.single())
      each.append(evaluation.per_example(model.evaluate, state, dataset, **how)["nll"])
    return -np.logaddexp.reduce(-np.array(each), axis=0) + np.log(10)

  area = scoring.auroc(nll(images), nll(images[:, ::-1, ::-1]))
  (row,) = report["outliers"]
  assert row["scores"]["score"]["auroc"] == pytest.approx(area, abs=1e-4)
  assert row["scores"]["score"]["counts"] == [299, 299]
  assert row["scores"]["typicality of 10"]["counts"] == [29, 29]
  (protocol,) = report["protocol"]
  assert protocol["background"] == "deflate"
  assert protocol["typical"] == pytest.approx(nll(data.digits("train").arrays["image"][:1000]).mean(), abs=0.01)


def test_a_run_is_its_own_background_and_then_the_ratio_is_blind(place, capfd):
  arguments = ("outliers", "tiny", "--background", "tiny", "--against", "noise", "--num", "40", "--json")
  report = json.loads(printed(capfd, *arguments))
  (row,), (protocol,) = report["outliers"], report["protocol"]
  assert row["scores"]["ratio"]["auroc"] == 0.5
  assert protocol["background"] == "tiny"
  assert protocol["num"] == 40


def test_images_of_a_prepared_set_are_cut_to_the_runs_shape(place, capfd, shared_data):
  arguments = ("--against", "cifar10", "mnist", "--data-dir", str(shared_data), "--num", "100", "--json")
  rows = json.loads(printed(capfd, "outliers", "classes", *arguments))["outliers"]
  assert [row["kind"] for row in rows] == ["cifar10", "mnist"]
  assert rows[0]["scores"]["score"]["auroc"] > 0.95
