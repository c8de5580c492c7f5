"""What a user sees: output, exit codes, files, and that a run's path is all one needs."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
import time

import numpy as np
import pytest
from PIL import Image

import experiments
from gm_jax import checkpoint, runs
from gm_jax.cli import cache, main
from tests import stand_ins


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Runs of both stand-ins."""
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name in ("tiny", "means"):
    assert main(["train", name, "--run", str(place / name)]) == 0
  return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
  shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def drawn(*options):
  """The array that `gm-jax sample` writes."""
  assert main(["sample", *options, "--out", "drawn.npy"]) == 0
  return np.load("drawn.npy")


def test_help_names_every_command(capsys):
  assert main(["--help"]) == 0
  out, err = capsys.readouterr()
  assert not err
  for command in ("demo", "list", "train", "sample", "evaluate", "classify", "outliers", "verify", "doctor"):
    assert re.search(rf"^ +{command} ", out, re.MULTILINE), command


def test_pictures_of_an_experiment_are_drawn_after_training_and_again(place, capsys):
  means = np.asarray(Image.open("means/pictures/means.png"))
  assert means.shape == (20, 182)  # ten images of 8 x 8 and the lines between them, twice as large
  shutil.rmtree("means/pictures")
  assert main(["picture", "means"]) == 0
  out, err = capsys.readouterr()
  assert (out.split(), err) == (["means/pictures/means.png", "means/pictures/first.png"], "")
  np.testing.assert_array_equal(np.asarray(Image.open("means/pictures/means.png")), means)
  np.testing.assert_array_equal(np.asarray(Image.open("means/pictures/first.png"))[::32, ::32], means[2:18:2, 2:18:2])


def test_a_run_without_the_package_that_draws_is_whole(place, capsys):
  assert main(["train", "means", "--run", "new", "--broken"]) == 0
  out, _ = capsys.readouterr()
  assert "pictures: none yet (figures need matplotlib); then gm-jax picture new" in out
  assert main(["picture", "new"]) == 2
  assert main(["sample", "new"]) == 0


def test_the_fields_of_an_experiment_are_its_options(capsys, trained):
  assert main(["train", "tiny", "--help"]) == 0
  out, _ = capsys.readouterr()
  for words in ("--steps INT", "--hidden INT", "units", "--strategy {single,dp,fsdp,pmap,ensemble}"):
    assert words in out


def test_list_shows_each_experiment_with_its_promise(capsys, trained):
  assert main(["list"]) == 0
  out, _ = capsys.readouterr()
  line = r"  tiny +A VAE of the digits .*\[0\.1 min on 2 CPU cores; dots\]$"
  assert re.search(rf"^approximate\n(?:  .*\n)*{line}", out, re.MULTILINE)
  for header in experiments.headers():
    assert out.count(f"  {header.name} ") == 1


@pytest.mark.parametrize("header", experiments.headers(), ids=lambda header: header.name)
def test_every_experiment_keeps_the_form(header):
  assert all(header), f"its header leaves something out: {header}"
  assert header.command.startswith(f"gm-jax train {header.name}")
  assert (runs.pathlib.Path(runs.__file__).parent / header.family).is_dir()
  module = experiments.load(header.name)
  assert module.Config()
  assert callable(module.model)
  assert callable(module.data)


def test_training_says_what_where_and_what_next(capsys, place):
  assert main(["train", "tiny"]) == 0
  out, _ = capsys.readouterr()
  first, samples, following = out.splitlines()
  assert first.startswith("training tiny to step 4, 16 examples a step on 8 cpu device(s), in runs/tiny")
  picture = place / samples.removeprefix("samples: ")
  assert Image.open(picture).size > (8, 8)
  assert following == "next: gm-jax evaluate runs/tiny"
  assert main(following.split()[2:]) == 0


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(capsys, place):
  assert main(["train", "tiny", "--run", "whole", "--steps", "8"]) == 0
  capsys.readouterr()
  assert main(["train", "tiny", "--run", "tiny", "--steps", "8", "--log-every", "1"]) == 0
  assert "tiny has taken 4 steps; resuming" in capsys.readouterr().out
  assert runs.read_config("tiny")["config"]["steps"] == 8
  np.testing.assert_array_equal(drawn("tiny"), drawn("whole"))
  assert (drawn("tiny") != drawn(str(place / "tiny"), "--seed", "1")).any()


def test_what_a_run_was_begun_with_need_not_be_said_again(place):
  assert main(["train", "tiny", "--run", "wide", "--hidden", "11"]) == 0
  assert main(["train", "tiny", "--run", "wide", "--steps", "6"]) == 0
  assert runs.read_config("wide")["config"]["hidden"] == 11


def test_tensorboard_is_one_option_away(place):
  pytest.importorskip("tensorboardX")
  assert main(["train", "tiny", "--run", "tiny", "--steps", "6", "--tensorboard"]) == 0
  assert [path.stat().st_size > 0 for path in (place / "tiny/tensorboard").iterdir()] == [True]


def test_a_package_that_is_missing_is_named(place, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  assert main(["train", "tiny", "--run", "new", "--tensorboard"]) == 2
  assert "pip install 'gm-jax[tensorboard]'" in capsys.readouterr().err
  assert not (place / "new").exists()


def test_image_i_depends_on_seed_and_i_alone(place):
  many = drawn("tiny", "--num", "70", "--seed", "5")  # drawn in two pieces
  np.testing.assert_array_equal(drawn("tiny", "--num", "3", "--seed", "5"), many[:3])
  assert (many[64:] != many[:6]).any(), "the second piece begins again at image 0"


def test_sampling_needs_no_data(place):
  stored = json.loads((place / "tiny/config.json").read_text())
  stored["config"] |= {"source": "mnist", "data_dir": "nowhere"}
  (place / "tiny/config.json").write_text(json.dumps(stored))
  assert drawn("tiny", "--num", "3").shape == (3, 8, 8, 1)


def test_a_label_is_drawn_from(place, capsys):
  ones = drawn("means", "--label", "1", "--num", "3")
  assert (ones == ones[0]).all()
  np.testing.assert_array_equal(ones[0], drawn("means", "--num", "2")[1])  # without labels the classes come in turn
  capsys.readouterr()
  assert main(["sample", "means", "--label", "1"]) == 0
  assert capsys.readouterr().out.endswith("means/samples/seed-0.png\n")
  assert Image.open("means/samples/seed-0.png").mode == "L"


def test_json_is_all_that_is_printed_and_is_the_report(capfd, place):
  assert main(["evaluate", "means", "--json"]) == 0
  out, _ = capfd.readouterr()
  report = json.loads(out)
  assert report == json.loads(runs.report_file("means").read_text())
  assert {*report} == {"metrics", "protocol"}
  assert {*report["metrics"]["nll"]} == {"mean", "stderr", "unit", "count"}
  assert [report["metrics"][name]["unit"] for name in ("nll", "nll_bits_per_dim")] == ["nats", "bits/dim"]
  config = runs.read_config("means")["config"]
  expected = {"experiment": "means", "step": 2, "data": "digits", "split": "test", "config": config}
  assert expected.items() <= report["protocol"].items()


def test_the_table_shows_the_same_numbers_with_their_protocol(capsys, place):
  assert main(["evaluate", "tiny", "--split", "train"]) == 0
  out, _ = capsys.readouterr()
  bound = json.loads(runs.report_file("tiny").read_text())["metrics"]["nll_bound"]
  assert f"nll_bound                {bound['mean']:.6g} +- {bound['stderr']:.4g} nats  ({bound['count']} examples)" in out
  assert "protocol: data digits, split train" in out


def test_a_score_that_is_not_finite_is_a_failure(capsys, place):
  stored = json.loads((place / "means/config.json").read_text())
  stored["config"]["broken"] = True
  (place / "means/config.json").write_text(json.dumps(stored))
  assert main(["evaluate", "means", "--json"]) == 1
  out, err = capsys.readouterr()
  assert not out
  assert re.fullmatch(r"gm-jax: nll of example \d+ is nan; .*\n", err)
  assert not runs.report_file("means").exists()


def test_verify_names_the_bad_file(capsys, place):
  assert main(["verify", "tiny"]) == 0
  out, _ = capsys.readouterr()
  assert out.endswith("tiny: 2 of 2 checkpoints are whole\n")
  assert "BAD" not in out
  victim = next((place / "tiny/checkpoints/00000004").rglob("_METADATA"))
  victim.write_bytes(victim.read_bytes()[:-1])
  assert main(["verify", "tiny"]) == 1
  out, _ = capsys.readouterr()
  bad = [line for line in out.splitlines() if line.endswith("BAD")]
  assert len(bad) == 1
  assert bad[0].startswith(str(victim.relative_to(place / "tiny/checkpoints")))
  assert out.endswith("tiny: 1 of 2 checkpoints are whole\n")


def test_verify_of_a_run_without_checkpoints_fails(place):
  shutil.rmtree("tiny/checkpoints")
  assert main(["verify", "tiny"]) == 1


def test_the_doctor_ends_in_a_verdict(capsys, tmp_path):
  assert main(["doctor"]) == 0
  assert capsys.readouterr().out.splitlines()[-1].split() == ["verdict", "ready"]
  assert main(["doctor", "--data-dir", str(tmp_path)]) == 1
  assert "not ready" in capsys.readouterr().out.splitlines()[-1]


def test_the_compile_cache_is_its_owners_alone(tmp_path):
  old = os.umask(0)
  try:
    cache.make_private(tmp_path / "gm_jax" / "compiled")
    (tmp_path / "open").mkdir(mode=0o777)
    cache.make_private(tmp_path / "open")
  finally:
    os.umask(old)
  for path in (tmp_path / "gm_jax", tmp_path / "gm_jax" / "compiled", tmp_path / "open"):
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
  (tmp_path / "link").symlink_to(tmp_path / "open")
  with pytest.raises(PermissionError):
    cache.make_private(tmp_path / "link")


def test_the_compile_cache_is_on_by_default_and_in_the_users_cache_directory(tmp_path):
  environment = {**stand_ins.environment(), "XDG_CACHE_HOME": str(tmp_path / "cache")}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  process = stand_ins.gm_jax("train", "tiny", cwd=tmp_path, env=environment)
  _, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert [*(tmp_path / "cache/gm_jax/compiled").iterdir()]


def test_a_signal_saves_and_the_exit_code_tells(tmp_path):
  long = ["--steps", 10**6, "--save-every", 10**6]
  process = stand_ins.gm_jax("train", "tiny", *long, cwd=tmp_path, env=stand_ins.environment())
  deadline = time.monotonic() + 100
  while not (tmp_path / "runs/tiny/metrics.jsonl").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
  time.sleep(0.5)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143, err
  assert re.fullmatch(r"gm-jax: stopped by SIGTERM after step \d+ of 1000000; .*", err.splitlines()[-1])
  assert checkpoint.verify(tmp_path / "runs/tiny/checkpoints") == []
  assert checkpoint.steps(tmp_path / "runs/tiny/checkpoints")


def test_two_processes_train_the_run_of_one(place):
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    coordinator = f"localhost:{listener.getsockname()[1]}"
  command = ["train", "tiny", "--run", "two", "--processes", 2, "--coordinator", coordinator, "--process-id"]
  environment = stand_ins.environment(devices=2)
  processes = [stand_ins.gm_jax(*command, index, cwd=place, env=environment) for index in (0, 1)]
  outputs = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert "on 4 cpu device(s)" in outputs[0][0]
  said = [line for line in outputs[1][0].splitlines() if not line.startswith("[Gloo]")]
  assert not said, "the first speaks for all"
  difference = drawn("two").astype(int) - drawn("tiny")
  assert np.abs(difference).max() <= 1
  losses = [runs.read_metrics(run)[-1]["loss"] for run in ("two", "tiny")]
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_cpu_counted_as_several_devices_trains_the_run_of_one(place):
  process = stand_ins.gm_jax("train", "tiny", "--run", "cut", "--cpu-devices", 2, cwd=place, env=stand_ins.environment())
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert "on 2 cpu device(s)" in out
  assert np.abs(drawn("cut").astype(int) - drawn("tiny")).max() <= 1
  losses = [runs.read_metrics(run)[-1]["loss"] for run in ("cut", "tiny")]
  np.testing.assert_allclose(*losses, rtol=1e-5)
