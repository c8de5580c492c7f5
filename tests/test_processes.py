"""Two processes on one machine train the same run as one, and are stopped together."""

import signal
import socket

import jax
import numpy as np
import pytest

from gm_jax import checkpoint, parallel, runs
from tests.drivers import run as driver
from tests.drivers.process import Driver


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def two(run, *arguments) -> list[Driver]:
  port = free_port()
  return [Driver(run, *arguments, "--port", port, "--process", index, devices=2) for index in range(2)]


def finish(drivers) -> list[int]:
  try:
    return [process.finish()[0] for process in drivers]
  finally:
    for process in drivers:
      process.kill()


def final(run, model):
  strategy = parallel.single()
  example = strategy.abstract_state(driver.make(model).init, driver.Batches(0.0)(0))
  return checkpoint.restore(runs.checkpoints(run), example)


@pytest.mark.parametrize(("model", "strategy"), [("vae", "fsdp"), ("gan", "dp")])
def test_two_processes_train_to_the_same_numbers_as_one(model, strategy, tmp_path):
  arguments = ["--model", model, "--steps", 8, "--save-every", 3, "--strategy", strategy]
  drivers = two(tmp_path / "two", *arguments)
  assert finish(drivers) == [0, 0], [process.complaint()[-2000:] for process in drivers]
  assert (alone := Driver(tmp_path / "one", *arguments)).finish()[0] == 0, alone.complaint()
  (step, together), (_, alone) = (final(tmp_path / name, model) for name in ("two", "one"))
  assert step == 8
  for left, right in zip(jax.tree.leaves(together), jax.tree.leaves(alone)):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
  lines = [runs.read_metrics(tmp_path / name) for name in ("two", "one")]
  assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
  for left, right in zip(*lines):
    if "loss" in left:
      assert left["loss"] == pytest.approx(right["loss"], rel=1e-5, abs=1e-6)
  assert checkpoint.verify(runs.checkpoints(tmp_path / "two")) == []


@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_saves_both_and_they_go_on(told, tmp_path):
  drivers = two(tmp_path, "--steps", 400, "--save-every", 1000, "--pause", 0.02)
  drivers[told].wait_for("step", 5)
  drivers[told].send_signal([signal.SIGTERM, signal.SIGINT][told])
  statuses = finish(drivers)
  assert set(statuses) <= {128 + signal.SIGTERM, 128 + signal.SIGINT}, [process.complaint()[-2000:] for process in drivers]
  assert statuses[1 - told] == 128 + signal.SIGTERM
  (step,) = checkpoint.steps(runs.checkpoints(tmp_path))
  assert 5 <= step < 400
  assert checkpoint.verify(runs.checkpoints(tmp_path)) == []

  # One process goes on where two have stopped.
  assert (alone := Driver(tmp_path, "--steps", step + 2)).finish()[0] == 0, alone.complaint()
  assert [line["step"] for line in runs.read_metrics(tmp_path) if "loss" in line] == list(range(1, step + 3))
