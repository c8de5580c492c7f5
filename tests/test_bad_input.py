"""Whatever is wrong with the input: exit code 2, one line that names it, no traceback, and no file changed."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from gm_jax import checkpoint
from gm_jax.cli import main
from tests import stand_ins

STEPS = (2, 4)  # checkpoints of the run that the cases begin with


class Case(NamedTuple):
  command: str
  names: str  # what the line must say
  prepare: Callable = lambda place: None


def damage(change: Callable, pattern: str = "MANIFEST.json", steps=STEPS):
  """Put every file of that name in the run, or in its checkpoints of these steps, through `change`."""

  def prepare(place):
    spared = {f"{step:08d}" for step in STEPS} - {f"{step:08d}" for step in steps}
    for path in (place / "run").rglob(pattern):
      if not spared & {*path.parts}:
        change(path)

  return prepare


def flip(path: pathlib.Path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def halve(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: pathlib.Path):
  path.write_bytes(b"")


def config(**changes):
  """Change fields of the run's configuration on disk."""

  def prepare(place):
    path = place / "run" / "config.json"
    stored = json.loads(path.read_text())
    stored["config"].update(changes)
    path.write_text(json.dumps(stored))

  return prepare


def stored(text: str | None = None, **changes):
  """Replace config.json, or entries of it."""

  def prepare(place):
    path = place / "run" / "config.json"
    path.write_text(text if text is not None else json.dumps(json.loads(path.read_text()) | changes))

  return prepare


def picture(content: bytes, name: str = "bad.png"):
  """A folder of good pictures and one that is not."""

  def prepare(place):
    (place / "pictures").mkdir()
    for index in range(40):
      Image.fromarray(np.full((8, 8), 6 * index, np.uint8)).save(place / "pictures" / f"{index:02d}.png")
    (place / "pictures" / name).write_bytes(content)

  return prepare


def make(*paths: str, content: str | None = None):
  """Directories, or files with this content."""

  def prepare(place):
    for path in paths:
      (place / path).mkdir() if content is None else (place / path).write_text(content)

  return prepare


def in_place_of(name: str, content: str | None = None):
  """A directory where a file is to be, or a file with this content where a directory is."""

  def prepare(place):
    path = place / name
    if path.is_dir():
      shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_text(content)

  return prepare


FOLDER = "train tiny --run new --source folder"

CASES = {
  # The command line itself.
  "no command": Case("", "COMMAND"),
  "unknown command": Case("trian tiny", "trian"),
  "unknown option": Case("sample run --nmu 3", "--num"),
  "option of no command": Case("--steps 3", "'3'"),
  "list takes nothing": Case("list everything", "everything"),
  # Which experiment.
  "no experiment": Case("train", "NAME"),
  "unknown experiment": Case("train tinny", "tiny"),
  "nothing like an experiment": Case("train zzzzzz", "tiny"),
  "experiment outside": Case("train ../tests/stand_ins/tiny", "../tests/stand_ins/tiny"),
  "experiment with dots": Case("train gm_jax.cli", "gm_jax.cli"),
  "base is none": Case("train base", "base"),
  # Its fields.
  "unknown field": Case("train tiny --stps 3", "--steps"),
  "nothing like a field": Case("train tiny --xyzzyxyzzy 3", "--batch-size"),
  "stray word": Case("train tiny now", "now"),
  "steps of text": Case("train tiny --steps many", "many"),
  "steps of halves": Case("train tiny --steps 1.5", "1.5"),
  "steps without value": Case("train tiny --steps", "--steps"),
  "no devices": Case("train tiny --cpu-devices 0", "--cpu-devices is 0"),
  "negative steps": Case("train tiny --steps -1", "-1"),
  "no steps": Case("train tiny --steps 0", "--steps is 0"),
  "endless steps": Case("train tiny --steps 99999999999", "99999999999"),
  "negative seed": Case("train tiny --seed -1", "-1"),
  "large seed": Case("train tiny --seed 4294967296", "4294967296"),
  "unknown strategy": Case("train tiny --strategy quantum", "fsdp"),
  "rate not a number": Case("train tiny --learning-rate nan", "nan"),
  "endless rate": Case("train tiny --learning-rate inf", "inf"),
  "negative rate": Case("train tiny --learning-rate -0.1", "-0.1"),
  "rate of text": Case("train tiny --learning-rate fast", "fast"),
  "never log": Case("train tiny --log-every 0", "--log-every"),
  "no samples": Case("train tiny --num-samples 0", "--num-samples"),
  "empty batch": Case("train tiny --batch-size 0", "--batch-size"),
  "batch larger than the data": Case("train tiny --run new --batch-size 4000", "4000"),
  "batch not for eight devices": Case("train tiny --run new --batch-size 12", "12"),
  # Its data.
  "data directory missing": Case("train tiny --run new --source mnist --data-dir nowhere", "nowhere"),
  "data directory empty": Case("train tiny --run new --source mnist --data-dir here", "here", make("here")),
  "data directory a file": Case("train tiny --run new --source mnist --data-dir here", "here", make("here", content="?")),
  "folder missing": Case(FOLDER, "pictures"),
  "folder empty": Case(FOLDER, "pictures", make("pictures")),
  "folder a file": Case(FOLDER, "pictures", make("pictures", content="?")),
  "unreadable picture": Case(FOLDER, "bad.png", picture(b"\x89PNG\r\n\x1a\n" + bytes(100))),
  "text as a picture": Case(FOLDER, "bad.jpg", picture(b"hello", "bad.jpg")),
  "empty picture": Case(FOLDER, "bad.png", picture(b"")),
  "two channels": Case(f"{FOLDER} --channels 2", "2 channels", picture(b"")),
  "pictures of no size": Case(f"{FOLDER} --size 0", "size 0", picture(b"")),
  # Where to.
  "run is a file": Case("train tiny --run file", "file", make("file", content="?")),
  "run below a file": Case("train tiny --run file/run", "file", make("file", content="?")),
  "run that cannot be written": Case("train tiny --run /sys/gm_jax", "/sys/gm_jax"),
  "run is something else": Case("train tiny --run other", "config.json", make("other", "other/notes")),
  "run of another experiment": Case("train means --run run", "tiny"),
  "lock that cannot be written": Case("train tiny --run run --steps 6", ".lock", in_place_of("run/.lock")),
  # Resuming.
  "fewer steps than taken": Case("train tiny --run run --steps 1", "steps"),
  "another seed": Case("train tiny --run run --seed 5 --steps 6", "seed"),
  "another model": Case("train tiny --run run --hidden 9 --steps 6", "hidden"),
  "other data": Case("train tiny --run run --source folder --steps 6", "source", picture(b"", "notes.txt")),
  "resume from damage": Case("train tiny --run run --steps 6", "MANIFEST.json", damage(empty)),
  # Several processes.
  "process of none": Case("train tiny --run new --process-id 0", "--processes"),
  "processes of text": Case("train tiny --run new --processes two", "two"),
  "no processes": Case("train tiny --run new --processes 0", "0"),
  "no coordinator": Case("train tiny --run new --processes 2 --process-id 0", "--coordinator"),
  "process too many": Case("train tiny --run new --processes 2 --process-id 2 --coordinator localhost:1", "2"),
  "coordinator without port": Case("train tiny --run new --processes 2 --process-id 0 --coordinator localhost", "localhost"),
  # Which run.
  "no such run": Case("sample nowhere", "nowhere"),
  "not a run": Case("evaluate other", "config.json", make("other")),
  "verify no run": Case("verify other", "config.json", make("other")),
  "config is not JSON": Case("sample run", "config.json", stored("{")),
  "config is not text": Case("sample run", "config.json", damage(lambda path: path.write_bytes(b"\xff\xfe"), "config.json")),
  "config is a list": Case("sample run", "config.json", stored("[]")),
  "config is empty": Case("sample run", "experiment", stored("{}")),
  "config names no experiment": Case("sample run", "'tinny'", stored(experiment="tinny")),
  "config names a path": Case("sample run", "../../etc/passwd", stored(experiment="../../etc/passwd")),
  "config has no shapes": Case("sample run", "shapes", stored(shapes={"image": 3})),
  "config has an unknown field": Case("sample run", "depth", config(depth=3)),
  "config has a wrong type": Case("sample run", "'wide'", config(hidden="wide")),
  "config has a truth for a number": Case("sample run", "hidden", config(hidden=True)),
  "config out of range": Case("evaluate run", "-4", config(batch_size=-4)),
  "checkpoint of another model": Case("sample run", "another model", config(hidden=9)),
  # Its checkpoints.
  "no checkpoints": Case("sample run", "no checkpoint", lambda place: shutil.rmtree(place / "run/checkpoints")),
  "flipped bits": Case("sample run", "_METADATA", damage(flip, "_METADATA")),
  "truncated arrays": Case("sample run", "manifest.ocdbt", damage(halve, "manifest.ocdbt")),
  "empty files": Case("evaluate run", "MANIFEST.sha256", damage(empty, "MANIFEST.sha256")),
  "missing manifest": Case("evaluate run", "MANIFEST.json", damage(pathlib.Path.unlink)),
  # Drawing and scoring.
  "no images": Case("sample run --num 0", "--num is 0"),
  "fewer than none": Case("sample run --num -3", "-3"),
  "images of text": Case("sample run --num ten", "ten"),
  "negative sampling seed": Case("sample run --seed -1", "-1"),
  "label not a number": Case("sample run --label cat", "cat"),
  "label too large": Case("sample run --label 10", "--label is 10"),
  "label negative": Case("sample run --label -1", "--label is -1"),
  "label for a model without": Case("sample run --label 3", "not a conditional model"),
  "picture of unknown kind": Case("sample run --out picture.gif", ".png"),
  "picture without kind": Case("sample run --out picture", ".png"),
  "picture to nowhere": Case("sample run --out nowhere/picture.png", "nowhere"),
  "picture onto a directory": Case("sample run --out here.png", "here.png", make("here.png")),
  "samples are a file": Case("sample run", "samples", in_place_of("run/samples", "")),
  "unknown split": Case("evaluate run --split tset", "test"),
  "report that cannot be written": Case("evaluate run", "report.json", in_place_of("run/report.json")),
  # Tasks.
  "classify without classes": Case("classify run", "not a conditional model"),
  "classify without labels": Case("classify run", "no labels", stored(num_labels=None)),
  "classify labels unknown": Case("classify run", "labels 0 to 9", stored(num_labels=3)),
  "classify an unknown split": Case("classify run --split tset", "test"),
  "classify by an unknown prior": Case("classify run --prior jeffreys", "uniform"),
  "classify no run": Case("classify nowhere", "nowhere"),
  "classify several runs": Case("classify run run", "run"),
  "outliers of no run": Case("outliers", "RUN"),
  "outliers of a missing run": Case("outliers run nowhere", "nowhere"),
  "outliers of an unknown kind": Case("outliers run --against cats", "shuffled, rotated"),
  "outliers without data": Case("outliers run --against mnist --data-dir nowhere", "nowhere"),
  "outliers too few": Case("outliers run --num 1", "--num is 1"),
  "outliers with a negative seed": Case("outliers run --seed -1", "-1"),
  "outliers among points": Case("outliers run", "8 bits", stored(shapes={"image": [[4, 1, 1, 2], "float32"]})),
  "outliers of no shapes": Case("outliers run", "shapes", stored(shapes={"image": 3})),
  "outliers without background": Case("outliers run --background nowhere", "nowhere"),
  "picture of none": Case("picture run", "tiny"),
  "picture of no run": Case("picture nowhere", "nowhere"),
  "parameters of nothing": Case("parameters --height 0", "--height is 0"),
  "parameters of one level": Case("parameters --levels 1", "--levels is 1"),
  "parameters of too much": Case("parameters --height 1000 --width 1000", "1,000,000 variables"),
  "neighbours too many": Case("train neighbourhood_mnist --parents 11", "--parents is 11"),
  "back-off out of order": Case("train neighbourhood_mnist --back-off 4 2", "--back-off"),
  "doctor without data": Case("doctor --data-dir nowhere", "nowhere"),
}


def tree(place: pathlib.Path) -> dict:
  return {str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in place.rglob("*")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of four steps, checkpoints after two and four."""
  stand_ins.add()
  run = tmp_path_factory.mktemp("trained") / "run"
  assert main(["train", "tiny", "--run", str(run)]) == 0
  assert checkpoint.steps(run / "checkpoints") == [*STEPS]
  return run


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
  """The working directory, with a copy of the run in it."""
  shutil.copytree(trained, tmp_path / "run")
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_in_one_line(name, place, capfd):
  case = CASES[name]
  case.prepare(place)
  before = tree(place)
  capfd.readouterr()
  code = main(case.command.split())
  out, err = capfd.readouterr()
  told = [line for line in err.splitlines() if "is damaged and passed over" not in line]  # one for each damaged checkpoint
  assert code == 2, err
  assert len(told) == 1, err
  assert told[0].startswith("gm-jax: ")
  assert case.names in told[0]
  assert "Traceback" not in err + out
  assert tree(place) == before, "something was written"


@pytest.mark.parametrize("name", ["unknown experiment", "steps of text", "run that cannot be written", "no such run"])
def test_bad_input_to_a_real_process(name, tmp_path):
  process = stand_ins.gm_jax(*CASES[name].command.split(), cwd=tmp_path, env=stand_ins.environment())
  out, err = process.communicate(timeout=120)
  assert process.returncode == 2
  assert (out, err.count("\n")) == ("", 1), err
  assert CASES[name].names in err
  assert not [*tmp_path.iterdir()]


def test_a_damaged_checkpoint_is_passed_over_and_named(place, capfd):
  damage(flip, "_METADATA", steps=STEPS[-1:])(place)
  assert main(["sample", "run", "--num", "2", "--out", "two.npy"]) == 0
  out, err = capfd.readouterr()
  assert "after step 2" in out
  assert "00000004" in err
  assert "_METADATA" in err
  assert np.load("two.npy").shape == (2, 8, 8, 1)
