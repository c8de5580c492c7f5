"""The loop: its result is a function of the seed however often interrupted; each report is there once; bad news stop it."""

import json
import os
import signal
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import checkpoint, hooks, parallel, random, runs
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.errors import CheckpointError, NonFiniteError, Stopped, UserError
from gm_jax.progress import Progress
from gm_jax.train import _calls, train
from tests.drivers.run import digest

BATCH_SIZE = 8


def batches(step):
  return {"image": np.random.default_rng(step).integers(0, 256, (BATCH_SIZE, 2, 2, 1), dtype=np.uint8)}


class Denoiser(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(4)(nn.tanh(nn.Dense(8)(x)))


def objective(net, key, batch, train):
  x = batch["image"].reshape(-1, 4) / 255
  losses = ((net(x + random.normal(key, len(x), (4,))) - x) ** 2).sum(1)
  return losses, {"twice": 2 * losses}


@pytest.fixture(scope="module")
def model():
  draw = lambda net, key, num, condition: jnp.round(255 * nn.sigmoid(net(random.normal(key, num, (4,))))).astype(jnp.uint8)
  sample = lambda *args: draw(*args).reshape(-1, 2, 2, 1)
  return from_objective(Denoiser(), objective, sample, optax.adam(1e-2), reports="reconstruction")


def counting(*, bad_at=None, bad=np.nan, metric=True, state=True):
  """A model whose state is the number of its steps; at step `bad_at` its metric, its state or both are `bad`."""

  def step(key, now, batch):
    del key, batch
    spoil = lambda value, wanted: jnp.where((now + 1 == bad_at) & wanted, bad, value) if bad_at else value
    metrics = {"fine": now * 1.0, "loss": spoil(now + 1.0, metric)}
    return spoil(now + 1.0, state), metrics

  return GenerativeModel(lambda key, batch: jnp.zeros(()), step, None, None)


def single():
  return parallel.single()


def run_of(model, run=None, **options):
  options = {"seed": 0, "steps": 12, "strategy": single(), "log_every": 1, "save_every": 4, **options}
  return train(model, batches, run=run, **options)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
  """The uninterrupted run: hash of its state, and its metrics file."""
  run = tmp_path_factory.mktemp("whole")
  return digest(run_of(model, run)), runs.metrics_file(run).read_bytes()


# ---- what it computes ----


def test_one_seed_one_result_and_another_seed_another(model, whole):
  assert digest(run_of(model)) == whole[0]
  assert digest(run_of(model, seed=1)) != whole[0]


def test_it_is_the_plain_loop(model, whole):
  """Ten lines without gm_jax.train come to the same state: key from (seed, i), batch i, nothing else."""
  strategy = single()
  state, step = strategy.init(model.init, 0, batches(0)), strategy.step(model.step)
  for index in range(12):
    state, _ = step(np.uint32(0), np.int32(index), state, strategy.place_batch(batches(index)))
  assert digest(state) == whole[0]


def test_stopped_at_any_step_and_resumed_it_is_the_same_run(model, whole, tmp_path):
  """One run, begun anew for every single step."""
  for steps in range(1, 13):
    state = run_of(model, tmp_path, steps=steps)
    assert checkpoint.steps(runs.checkpoints(tmp_path))[-1] == steps
  assert digest(state) == whole[0]
  assert runs.metrics_file(tmp_path).read_bytes() == whole[1]


def test_a_finished_run_is_only_read(model, whole, tmp_path):
  run_of(model, tmp_path)
  assert digest(run_of(model, tmp_path)) == whole[0]
  assert runs.metrics_file(tmp_path).read_bytes() == whole[1]
  with pytest.raises(UserError, match="already taken 12 steps"):
    run_of(model, tmp_path, steps=5)
  with pytest.raises(UserError, match="begun with seed 0, not 3"):
    run_of(model, tmp_path, seed=3)


def test_several_steps_in_one_call_are_the_same_steps(model, whole, tmp_path):
  """Calls of five steps, single ones where a save or a line falls in between; also when it is stopped half-way."""
  options = {"steps_per_call": 5, "log_every": 10, "steps": 23, "save_every": 7}
  state = run_of(model, tmp_path / "calls", **options)
  alone = run_of(model, log_every=10, steps=23)
  for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(alone)):
    np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-7)

  def stop(step, state, metrics):
    if step == 10:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(Stopped):
    run_of(model, tmp_path / "cut", hooks=[hooks.at(10, stop)], **options)
  assert digest(run_of(model, tmp_path / "cut", hooks=[hooks.at(10, lambda *_: None)], **options)) == digest(state)


@pytest.mark.parametrize("strategy", ["dp", "fsdp", "pmap"])
def test_several_steps_in_one_call_under_every_strategy(model, strategy):
  strategy = parallel.fsdp(0) if strategy == "fsdp" else parallel.BY_NAME[strategy]()
  state = run_of(model, strategy=strategy, steps_per_call=4, log_every=0, steps=8)
  for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(run_of(model, steps=8))):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", range(0, 40, 3))
def test_calls_do_every_step_once_and_are_cut_alike_from_any_start(start):
  whole = list(_calls(0, 40, 8, [10, 0, 7]))
  assert [step for first, last in whole for step in range(first, last)] == list(range(40))
  for every in (10, 7):
    assert not any(first < multiple < last for first, last in whole for multiple in range(0, 40, every))
  reached = next(first for first, last in whole if first >= start)
  assert list(_calls(reached, 40, 8, [10, 0, 7])) == [call for call in whole if call[0] >= reached]
  assert any(last - first == 8 for first, last in _calls(0, 40, 8, [16]))


def test_it_compiles_once(model):
  traces = []

  def step(*args):
    traces.append(1)
    return model.step(*args)

  run_of(model._replace(step=step), steps=30)
  assert len(traces) == 1


# ---- what it reports ----


def test_each_line_is_the_metrics_of_that_step(whole, model):
  lines = [json.loads(line) for line in whole[1].splitlines()]
  assert [line["step"] for line in lines] == list(range(1, 13))
  strategy = single()
  state, step = strategy.init(model.init, 0, batches(0)), strategy.step(model.step)
  for index, line in enumerate(lines):
    state, metrics = step(np.uint32(0), np.int32(index), state, strategy.place_batch(batches(index)))
    assert line == {"step": index + 1, **{name: float(value) for name, value in metrics.items()}}


def test_hooks_see_the_state_at_their_steps_and_what_they_return_is_logged(tmp_path):
  seen, logged = [], []

  class Listener(hooks.Hook):
    def log(self, step, record):
      logged.append((step, record))

  look = lambda step, state, metrics: seen.append((step, float(state), metrics["loss"])) or {"eval": {"state": float(state)}}
  run_of(counting(), tmp_path, steps=11, log_every=5, hooks=[hooks.at(3, look), Listener()])
  assert seen == [(step, step, step) for step in (3, 6, 9, 11)]
  assert logged == [(line.pop("step"), line) for line in runs.read_metrics(tmp_path)]
  assert [(step, *record) for step, record in logged] == [
    (3, "eval"), (5, "fine", "loss"), (6, "eval"), (9, "eval"), (10, "fine", "loss"), (11, "fine", "loss"), (11, "eval")
  ]  # fmt: skip


@pytest.mark.parametrize("tail", [b"", b'{"step": 5, "lo', b'{"step": 5, "loss": 1.0}\n{"step": 6}\n', b"\x00\x00\n", b"[]\n"])
def test_what_was_written_after_the_checkpoint_is_taken_back(tail, tmp_path):
  """The metrics file may have run ahead of the last checkpoint, and end in half a line."""
  run_of(counting(), tmp_path, steps=4)
  whole = runs.metrics_file(tmp_path).read_bytes()
  runs.metrics_file(tmp_path).write_bytes(whole + tail)
  run_of(counting(), tmp_path, steps=8)
  assert [line["step"] for line in runs.read_metrics(tmp_path)] == list(range(1, 9))
  assert runs.metrics_file(tmp_path).read_bytes().startswith(whole)


def test_the_lines_are_on_the_disk_before_a_checkpoint_is_committed(tmp_path, monkeypatch):
  seen = []
  save = checkpoint.save

  def spy(directory, step, *args, **options):
    seen.append((step, runs.read_metrics(tmp_path)[-1]["step"]))
    return save(directory, step, *args, **options)

  monkeypatch.setattr(checkpoint, "save", spy)
  run_of(counting(), tmp_path, steps=10)
  assert seen == [(4, 4), (8, 8), (10, 10)]


def test_pictures_are_of_the_same_images_and_written_whole(model, tmp_path):
  from PIL import Image

  run_of(model, tmp_path, hooks=[hooks.Pictures(6, model, num=9)])
  assert sorted(path.name for path in runs.samples(tmp_path).iterdir()) == ["00000006.png", "00000012.png"]
  with Image.open(runs.samples(tmp_path) / "00000012.png") as picture:
    assert picture.size == (250, 250)  # 3 x 3 images of 2 x 2 with lines of 1 between, enlarged 25 times


def test_points_become_dots():
  import io

  from PIL import Image

  points = np.asarray([[-3.9, 3.9], [0.1, 0.1], [9.0, 9.0]], np.float32).reshape(3, 1, 1, 2)
  picture = np.asarray(Image.open(io.BytesIO(hooks.png(points))))
  assert {tuple(place) for place in np.argwhere(picture)} == {(3, 3), (124, 131)}


def test_points_on_a_line_become_bars_and_more_than_two_coordinates_are_projected():
  import io

  from PIL import Image

  read = lambda points: np.asarray(Image.open(io.BytesIO(hooks.png(np.asarray(points, np.float32)[:, None, None]))))
  bars = read([[0.0], [0.0], [0.0], [0.0], [1.0], [9.9], [10.0]]) > 0  # 4 at the left end, 2 at the right, 1 at a tenth
  assert bars.sum(0)[[0, 7, 8, 24, 31, 32, 248, 255]].tolist() == [256, 256, 0, 64, 64, 0, 128, 128]
  assert bars[-1].sum() == 3 * 8
  assert {tuple(place) for place in np.argwhere(read([[-3.9, 3.9, 7.0], [0.1, 0.1, -7.0]]))} == {(3, 3), (124, 131)}
  assert (read([[5.0], [5.0]]) > 0).any()  # all at one place


def test_tensorboard_takes_back_what_a_killed_run_wrote_too_far(tmp_path):
  pytest.importorskip("tensorboardX")
  run_of(counting(), tmp_path, steps=4, hooks=[hooks.TensorBoard()])
  assert any((tmp_path / "tensorboard").iterdir())


def test_missing_extras_are_named(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
  monkeypatch.setitem(__import__("sys").modules, "wandb", None)
  with pytest.raises(UserError, match=r"gm-jax\[tensorboard\]"):
    hooks.TensorBoard()
  with pytest.raises(UserError, match=r"gm-jax\[wandb\]"):
    hooks.WandB()


class Screen:
  """What would be on a terminal, or in a log."""

  def __init__(self, terminal):
    self.terminal, self.text = terminal, ""

  def write(self, text):
    self.text += text
    return len(text)

  def flush(self):
    pass

  def isatty(self):
    return self.terminal


def test_progress_in_lines_begins_at_once_and_then_takes_its_time():
  seconds = iter(np.arange(0, 10_000, 0.5))
  screen = Screen(terminal=False)
  bar = Progress(screen, clock=lambda: next(seconds))
  bar.begin(None, 0, 400)
  bar.log(1, {"loss": 0.123456})
  for step in range(1, 401):
    bar.tick(step)
  lines = screen.text.splitlines()
  assert lines[0] == "training: step 1/400  first call took 0.5 s  loss 0.1235"
  assert lines[1] == "training: step 3/400  2 steps/s, 3:18 left  loss 0.1235"
  assert [int(line.split()[2].split("/")[0]) for line in lines] == [1, 3, 7, 15, 31, 63, 127, 247, 367, 400]


def test_progress_on_a_terminal_is_a_bar(model):
  screen = Screen(terminal=True)
  run_of(model, hooks=[Progress(screen)])
  assert "12/12" in screen.text
  assert "━━━" in screen.text


# ---- what stops it ----


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("steps_per_call", "bad_at"), [(1, 6), (1, 7), (1, 8), (4, 6), (4, 8)])
def test_a_metric_that_is_not_finite_stops_the_run(bad, steps_per_call, bad_at, tmp_path):
  with pytest.raises(NonFiniteError, match=f"step {bad_at}: loss is {bad}; the last good checkpoint is of step 4, in .*"):
    run_of(counting(bad_at=bad_at, bad=bad), tmp_path, log_every=0, steps_per_call=steps_per_call)
  assert checkpoint.steps(runs.checkpoints(tmp_path)) == [4]
  assert float(checkpoint.restore(runs.checkpoints(tmp_path), jnp.zeros(()))[1]) == 4


def test_lines_up_to_the_bad_step_are_kept(tmp_path):
  with pytest.raises(NonFiniteError, match="nothing was saved yet"):
    run_of(counting(bad_at=3), tmp_path)
  assert [line["step"] for line in runs.read_metrics(tmp_path)] == [1, 2]
  assert not runs.checkpoints(tmp_path).exists()


def test_a_state_that_is_not_finite_is_not_saved_though_its_metrics_are(tmp_path):
  with pytest.raises(NonFiniteError, match=r"step 8: .* holds a NaN; .*; the last good checkpoint is of step 4"):
    run_of(counting(bad_at=8, metric=False), tmp_path)
  assert checkpoint.steps(runs.checkpoints(tmp_path)) == [4]


def signalling(where, number):
  """A model, batches and hooks of which one sends a signal, at step 6 or as early as it can."""
  send = lambda: os.kill(os.getpid(), number)
  sent = []

  def once():
    if not sent:
      sent.append(where)
      send()

  class Sender(hooks.Hook):
    every = 6 if where == "hook" else 0

    def begin(self, run, step, steps):
      if where == "begin":
        once()

    def tick(self, step):
      if where == "step" and step == 6:
        once()

    def __call__(self, step, state, metrics):
      once()

    def log(self, step, record):
      if where == "log" and step == 6:
        once()

    def flush(self):
      if where == "flush":
        once()

  def feed(step):
    if (where == "init" and step == 0) or (where == "data" and step == 5):
      once()
    return batches(step)

  plain = counting()

  def step(*args):
    if where == "compile":
      once()
    return plain.step(*args)

  return plain._replace(step=step), feed, [Sender()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["init", "begin", "compile", "data", "step", "hook", "log", "flush", "save", "prune"])
def test_a_signal_at_any_time_finishes_the_step_and_saves_it(where, number, tmp_path, monkeypatch):
  """In ten phases of the run: afterwards there is a whole checkpoint of the last finished step."""
  if where in ("save", "prune"):
    inner = getattr(checkpoint, "_commit" if where == "save" else "prune")
    monkeypatch.setattr(checkpoint, inner.__name__, lambda *args: (os.kill(os.getpid(), number), inner(*args))[1])
  model, feed, sender = signalling(where, number)
  previous = signal.signal(number, lambda *_: pytest.fail("the signal came through"))
  try:
    with pytest.raises(Stopped) as stopped:
      train(model, feed, seed=0, steps=12, run=tmp_path, strategy=single(), hooks=sender, log_every=1, save_every=4)
    assert signal.getsignal(number) is not signal.SIG_DFL
    assert signal.getsignal(number).__name__ == "<lambda>", "the handlers are put back"
  finally:
    signal.signal(number, previous)
  expected = {"init": 1, "begin": 1, "compile": 1, "flush": 4, "save": 4, "prune": 4}.get(where, 6)
  assert checkpoint.verify(runs.checkpoints(tmp_path)) == []
  step, state = checkpoint.restore(runs.checkpoints(tmp_path), jnp.zeros(()))
  assert (step, float(state)) == (expected, expected)
  assert runs.read_metrics(tmp_path)[-1]["step"] == expected
  assert stopped.value.signal_number == number
  assert f"stopped by {number.name} after step {expected} of 12; saved in {tmp_path}" in str(stopped.value)


def test_a_second_interrupt_does_not_wait(tmp_path):
  def twice(step, state, metrics):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(KeyboardInterrupt):
    run_of(counting(), tmp_path, hooks=[hooks.at(6, twice)])
  assert checkpoint.steps(runs.checkpoints(tmp_path)) == [4]


def test_it_runs_in_a_thread_where_no_signal_can_be_caught(model, whole):
  result = []
  thread = threading.Thread(target=lambda: result.append(digest(run_of(model))))
  thread.start()
  thread.join()
  assert result == [whole[0]]


def test_two_processes_do_not_train_one_run(tmp_path):
  with runs.only_one(tmp_path), pytest.raises(UserError, match="another process is training"):
    run_of(counting(), tmp_path)
  run_of(counting(), tmp_path)


def test_a_damaged_checkpoint_is_passed_over_and_the_run_is_the_same(model, whole, tmp_path, caplog):
  run_of(model, tmp_path, steps=8)
  file = next(path for path in (runs.checkpoints(tmp_path) / "00000008").rglob("d/*") if path.is_file())
  file.write_bytes(file.read_bytes()[:-1])
  assert digest(run_of(model, tmp_path)) == whole[0]
  assert runs.metrics_file(tmp_path).read_bytes() == whole[1]
  assert file.name in caplog.text
  assert checkpoint.verify(runs.checkpoints(tmp_path)) == []


@pytest.mark.parametrize(
  ("options", "complaint"),
  [
    ({"seed": -1}, "seed -1; take an integer from 0"),
    ({"seed": 2**32}, "seed 4294967296"),
    ({"steps": -5}, "steps -5; take an integer from 0"),
    ({"steps": 1.5}, "steps 1.5"),
    ({"log_every": -1}, "log_every -1; take an integer of at least 0"),
    ({"save_every": -1}, "save_every -1"),
    ({"keep": 0}, "keep 0; take an integer of at least 1"),
    ({"steps_per_call": 0}, "steps_per_call 0"),
    ({"hooks": [hooks.Pictures(1, None)]}, "pictures need a run directory"),
  ],
  ids=lambda value: value if isinstance(value, str) else next(iter(value)),  # no addresses: workers must agree on names
)
def test_bad_arguments_are_named(options, complaint):
  with pytest.raises(UserError, match=complaint):
    run_of(counting(), **options)


def test_a_batch_that_cannot_be_cut_is_named(model):
  with pytest.raises(UserError, match="batch size 6 cannot be cut over 8 devices"):
    train(counting(), lambda step: {"image": np.zeros((6, 2))}, seed=0, steps=1, strategy=parallel.dp())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match="cannot write"):
    run_of(counting(), tmp_path / "file")


# ---- the run directory ----


CONFIG = {"experiment": "vae", "config": {"steps": 10, "rate": 0.1, "strategy": "dp", "sizes": [1, 2]}}


def changed(**fields):
  return {**CONFIG, "config": {**CONFIG["config"], **fields}}


def test_a_run_is_made_once_and_then_compared(tmp_path):
  free = ["config.strategy"]
  assert runs.open_run(tmp_path / "run", CONFIG) is False
  assert runs.open_run(tmp_path / "run", changed(sizes=(1, 2)), free=free) is True
  assert runs.open_run(tmp_path / "run", changed(steps=20, strategy="pmap"), free=free) is True
  assert runs.read_config(tmp_path / "run") == changed(steps=20, strategy="pmap")
  for config, complaint in [
    (changed(rate=0.2, steps=20), "config.rate = 0.1, not 0.2"),
    (changed(steps=19), "config.steps = 20, not 19"),
    (changed(steps=20, depth=3), "config.depth = nothing, not 3"),
    ({**changed(steps=20), "experiment": "gan"}, 'experiment = "vae", not "gan"'),
  ]:
    before = runs.config_file(tmp_path / "run").read_bytes()
    with pytest.raises(UserError, match=complaint):
      runs.open_run(tmp_path / "run", config, free=free)
    assert runs.config_file(tmp_path / "run").read_bytes() == before


def test_what_is_no_run_is_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  with pytest.raises(UserError, match="not a run; name a new or an empty directory"):
    runs.open_run(tmp_path, CONFIG)
  with pytest.raises(UserError, match="is a file"):
    runs.open_run(tmp_path / "thesis.tex", CONFIG)
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
  with pytest.raises(UserError, match="is not a run"):
    runs.read_config(tmp_path)
  for content, complaint in [("{", "is not JSON"), ("[1]", "holds list instead of an object")]:
    runs.config_file(tmp_path).write_text(content)
    with pytest.raises(UserError, match=complaint):
      runs.read_config(tmp_path)
