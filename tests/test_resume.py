"""kill -9 at any instant changes nothing: no parameter, no optimiser's state, no average, not a line of metrics.

Twelve kills here; GM_JAX_KILLS=200 python -m pytest tests/test_resume.py -k kill for the long one.
"""

import json
import os
import random
import signal
import time

import pytest

from gm_jax import checkpoint, runs
from tests.drivers.process import Driver

KILLS = int(os.environ.get("GM_JAX_KILLS", 12))
# Inside a save: arrays written but no manifest; manifest not yet on the disk; not yet renamed; just renamed.
# Inside a deletion: set aside but all there; half of its files gone.
FAULTS = ["save:arrays:1", "save:manifest:2", "delete:renamed:1", "save:flushed:1", "save:renamed:1", "delete:file:3"]


def uninterrupted(run, *arguments):
  status, lines = (driver := Driver(run, *arguments)).finish()
  assert status == 0, driver.complaint()
  return lines[-1][1], runs.metrics_file(run).read_bytes()


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_kills_leave_no_trace(model, tmp_path):
  kills = KILLS // 2
  arguments = ["--model", model, "--steps", 30 + 8 * kills, "--save-every", 5]
  expected_hash, expected_metrics = uninterrupted(tmp_path / "whole", *arguments)

  run = tmp_path / "killed"
  chance = random.Random(model)
  for index in range(kills):
    saved = max(checkpoint.steps(runs.checkpoints(run)), default=0)
    if index % 2:
      fault = FAULTS[index // 2 % len(FAULTS)] if model == "vae" else FAULTS[-1 - index // 2 % len(FAULTS)]
      driver = Driver(run, *arguments, fault=fault)
      begun = int(driver.wait_for("begin")[1])
      status, _ = driver.finish()
    else:
      driver = Driver(run, *arguments, "--pause", 0.01)
      begun = int(driver.wait_for("begin")[1])
      driver.wait_for("step", begun + chance.randint(1, 12))
      time.sleep(chance.uniform(0, 0.02))
      driver.kill()
      status, _ = driver.finish()
    assert status == -signal.SIGKILL, driver.complaint()
    assert begun == saved, "a finished save was lost"

  status, lines = Driver(run, *arguments).finish()
  assert status == 0
  assert lines[-1] == ["done", expected_hash]
  assert runs.metrics_file(run).read_bytes() == expected_metrics
  assert checkpoint.verify(runs.checkpoints(run)) == []
  left = sorted(path.name for path in runs.checkpoints(run).iterdir())
  assert left == [f"{step:08d}" for step in checkpoint.steps(runs.checkpoints(run))], "something half-written is left"


@pytest.fixture(scope="module")
def forty_steps(tmp_path_factory):
  return uninterrupted(tmp_path_factory.mktemp("whole"), "--steps", 40, "--save-every", 1000)


def test_the_metrics_of_every_step_are_there_once(forty_steps):
  records = [json.loads(line) for line in forty_steps[1].splitlines()]
  assert [record["step"] for record in records if "loss" in record] == list(range(1, 41))
  assert [record["step"] for record in records if "eval" in record] == [7, 14, 21, 28, 35, 40]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_as_if_it_had_not_come(number, tmp_path, forty_steps):
  arguments = ["--steps", 40, "--save-every", 1000]
  run = tmp_path / "stopped"
  driver = Driver(run, *arguments, "--pause", 0.05)
  driver.wait_for("step", 12)
  driver.send_signal(number)
  status, lines = driver.finish()
  assert status == 128 + number, driver.complaint()
  last = max([int(line[1]) for line in lines if line[0] == "step"], default=12)
  assert last < 20
  assert checkpoint.steps(runs.checkpoints(run)) == [last]
  assert checkpoint.verify(runs.checkpoints(run)) == []
  assert f"after step {last} of 40" in driver.complaint()

  status, lines = Driver(run, *arguments).finish()
  assert status == 0
  expected_hash, expected_metrics = forty_steps
  assert lines[-1] == ["done", expected_hash]
  assert runs.metrics_file(run).read_bytes() == expected_metrics


def test_a_full_disk_is_an_error_and_the_last_good_step_loads(tmp_path):
  run = tmp_path / "run"
  assert Driver(run, "--steps", 5).finish()[0] == 0
  before = runs.metrics_file(run).read_bytes()
  driver = Driver(run, "--steps", 10, limit_bytes=4096)
  status, _ = driver.finish()
  assert status == 1
  # Not always the last line, or a line of its own: the array store's threads may complain at the same time.
  assert f"cannot write checkpoint {run}" in driver.complaint(), driver.complaint()
  assert checkpoint.steps(runs.checkpoints(run)) == [5]
  assert checkpoint.verify(runs.checkpoints(run)) == []
  assert runs.metrics_file(run).read_bytes()[: len(before)] == before
  driver = Driver(run, "--steps", 10)
  assert driver.wait_for("begin") == ["begin", "5"]
  assert driver.finish()[0] == 0
