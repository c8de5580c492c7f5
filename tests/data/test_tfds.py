"""Prepared TFDS sets, read without TensorFlow: a tiny set written here, and the real ones where they are at hand."""

import sys

import numpy as np
import pytest
from PIL import Image

from gm_jax import data
from gm_jax.data.tfds import prepare_command
from gm_jax.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A folder with `tiny`: 20 + 6 pictures of different heights; picture i has level i and label i % 3."""
  import tensorflow_datasets as tfds

  class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")
    url_infos = {}  # nothing is downloaded

    def _info(self):
      features = {"image": tfds.features.Image(shape=(None, 6, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, num):
      for index in range(num):  # PIL pictures, since arrays would be encoded by TensorFlow
        yield index, {"image": Image.fromarray(np.full((6 + index, 6, 3), index, np.uint8)), "label": index % 3}

  root = tmp_path_factory.mktemp("tfds")
  Tiny(data_dir=root, file_format="array_record").download_and_prepare()
  (root / "half").mkdir()
  return root


def test_pictures_and_labels_without_tensorflow(prepared):
  for split, num in (("train", 20), ("test", 6)):
    arrays = data.tfds_images("tiny", split, prepared, size=4).arrays
    assert arrays["image"].shape == (num, 4, 4, 3)
    assert arrays["label"].dtype == np.int32
    assert sorted(arrays["image"][:, 0, 0, 0].tolist()) == list(range(num))
    np.testing.assert_array_equal(arrays["label"], arrays["image"][:, 0, 0, 0] % 3)
  assert "tensorflow" not in sys.modules
  assert data.tfds_splits("tiny", prepared) == ["test", "train"]


def test_on_disk_is_the_same(prepared):
  memory, disk = (data.tfds_images("tiny", "train", prepared, size=4, budget=budget) for budget in (10**6, 10))
  assert isinstance(disk, data.Large)
  for (one, _), (other, _) in zip(data.epoch(memory, 8), data.epoch(disk, 8)):
    np.testing.assert_array_equal(one["image"], other["image"])
    np.testing.assert_array_equal(one["label"], other["label"])


def test_sizes_that_differ_ask_for_one(prepared):
  with pytest.raises(UserError, match="give size"):
    data.tfds_images("tiny", "train", prepared)


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("tinny", "there: tiny.*tensorflow"),
    ("half", "there: tiny"),
    ("tiny:9.9.9", "there: tiny"),
    ("tiny/large", "there: tiny"),
    ("../tiny", "name is like"),
    ("tiny/../../etc", "name is like"),
    ("/etc", "name is like"),
    ("", "name is like"),
    ("tiny\n", "name is like"),
    ("huggingface:tiny", "name is like"),
  ],
)
def test_no_such_set(prepared, name, words):
  with pytest.raises(UserError, match=words) as error:
    data.tfds_images(name, "train", prepared, size=4)
  assert "\n" not in str(error.value)
  assert repr(name) in str(error.value)


def test_no_such_split_or_folder(prepared, tmp_path):
  with pytest.raises(UserError, match="'dev'.*test, train"):
    data.tfds_images("tiny", "dev", prepared, size=4)
  with pytest.raises(UserError, match="gone.*missing"):
    data.tfds_images("tiny", "train", tmp_path / "gone")


@pytest.mark.parametrize("damage", ["no records", "cut records", "changed records", "broken info", "broken features"])
def test_a_damaged_set_is_named(prepared, tmp_path, damage):
  copy = tmp_path / "tiny" / "1.2.0"
  copy.mkdir(parents=True)
  for file in (prepared / "tiny" / "1.2.0").iterdir():
    (copy / file.name).write_bytes(file.read_bytes())
  records = next(copy.glob("tiny-train*"))
  content = bytearray(records.read_bytes())
  if damage == "no records":
    records.unlink()
  elif damage == "cut records":
    records.write_bytes(content[: len(content) // 2])
  elif damage == "changed records":
    content[100:300] = bytes(200)
    records.write_bytes(content)
  else:
    (copy / f"{'dataset_info' if damage == 'broken info' else 'features'}.json").write_text("{")
  with pytest.raises(UserError, match="tiny"):
    data.tfds_images("tiny", "train", tmp_path, size=4)


def test_the_command_that_prepares_is_python():
  command = prepare_command("mnist", "/some where/it's")
  compile(command.removeprefix('python -c "').removesuffix('"'), "command", "exec")


@pytest.fixture
def nothing_kept(tmp_path, monkeypatch):
  """Everything is decoded here and now, whatever an earlier run has kept."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("nothing_kept")
def test_mnist(shared_data):
  """Sizes and counts per class as published; pixel mean 0.1307."""
  train, test = (data.tfds_images("mnist", split, shared_data) for split in ("train", "test"))
  assert train.arrays["image"].shape == (60_000, 28, 28, 1)
  assert np.bincount(train.arrays["label"]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
  assert np.bincount(test.arrays["label"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
  assert abs(train.arrays["image"].mean() / 255 - 0.13066) < 1e-5


@pytest.mark.usefixtures("nothing_kept")
def test_binarized_mnist_scores(shared_data):
  """Independent Bernoullis with one added count of each kind: 205.79 nats on the test split (Larochelle's binarisation)."""
  load = lambda split: data.binarized(data.tfds_images("binarized_mnist", split, shared_data), "static")
  train, test = load("train"), load("test")
  assert (len(train), len(test)) == (50_000, 10_000)
  assert set(np.unique(train.arrays["image"])) == {0, 255}
  assert train.protocol["binarization"] == "static"
  assert "binarization_seed" not in train.protocol  # the published draw, not one of ours
  white = (train.arrays["image"] == 255).reshape(len(train), -1).sum(0)
  q = (white + 1) / (len(train) + 2)
  x = (test.arrays["image"] == 255).reshape(len(test), -1)
  assert abs(-(x * np.log(q) + (1 - x) * np.log1p(-q)).sum(1).mean() - 205.79) < 0.005
