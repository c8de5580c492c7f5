"""The one loop: seed -> batches -> step -> hooks.

    state = train(model, batches, seed=0, steps=10_000, run="runs/vae", save_every=1000, hooks=[Progress()])

Step i is a function of the state, of batch i and of a key made from (seed, i), and of nothing else.  So nothing random is
saved, and a run that was stopped, killed or moved to other devices goes on as if nothing had happened: call `train` again
with the same arguments.
"""

import collections
import contextlib
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import checkpoint, parallel, runs
from gm_jax.core import GenerativeModel
from gm_jax.errors import NonFiniteError, Stopped, UserError
from gm_jax.hooks import JsonLines


def train(
  model: GenerativeModel,
  batches: Callable,
  *,
  seed: int,
  steps: int,
  run=None,
  strategy: parallel.Strategy | None = None,
  hooks=(),
  log_every: int = 100,
  save_every: int = 1000,
  keep: int = 2,
  steps_per_call: int | None = None,
):
  """Take `steps` steps in all, beginning at the last whole checkpoint of `run` if it has one; returns the state.

  Args:
    model: any model.
    batches: `step -> {name: [B, ...]}`, a pure function; where several processes train, also `batches.rows(step, start, stop)`.
    seed: integer in [0, 2**32).
    steps: in all, those of an earlier call on the same run included.
    run: a directory (runs.py); None keeps nothing.
    strategy: how the step is laid over devices; `parallel.dp()` by default.
    hooks: see hooks.py.
    log_every: steps between lines of metrics; each line holds the metrics of that one step.
    save_every: steps between checkpoints; one is saved at the end in any case.
    keep: how many checkpoints stay.
    steps_per_call: steps in one compiled program; by default 10 on an accelerator, where a call costs, and 1 on a CPU, where it
      does not and a convolution's gradient inside a loop would (networks/conv.py).

  Raises:
    Stopped: SIGTERM or Ctrl-C came; the step in hand was finished and saved.  A second Ctrl-C does not wait for that.
    NonFiniteError: a metric became NaN or infinite; what had been saved stays as it was.
    CheckpointError: the disk refused, or (DamagedError) no checkpoint of the run is whole.
    UserError: bad arguments, or a run of another model or seed.
  """
  _check("seed", seed, 0, 2**32 - 1)
  _check("steps", steps, 0, 2**31 - 1)
  _check("log_every", log_every, 0)
  _check("save_every", save_every, 0)
  _check("keep", keep, 1)
  strategy = strategy or parallel.dp()
  if steps_per_call is None:
    steps_per_call = 1 if jax.default_backend() == "cpu" else 10
  _check("steps_per_call", steps_per_call, 1)
  hooks = [JsonLines(), *hooks] if run else list(hooks)

  with _only_one(run), _Signals() as signals, _Ends(hooks) as begin:
    start, state = _resume(model, batches, seed, strategy, run) or (0, strategy.init(model.init, seed, batches(0)))
    if start > steps:
      raise UserError(f"{run} has already taken {start} steps; --steps {steps} is less")
    begin(run, start, steps)
    due = lambda step, every: every > 0 and (step % every == 0 or step == steps)
    compiled = strategy.step(_watched(model.step))
    watch, saved = _Watch(run), start

    def save(step):
      nonlocal saved
      watch.settle()
      for hook in hooks:
        hook.flush()
      if run and step > saved:
        _save(run, step, state, seed)
        checkpoint.prune(runs.checkpoints(run), step, keep)
        saved = step

    for first, step in _calls(start, steps, steps_per_call, [log_every, save_every, *(hook.every for hook in hooks)]):
      state, (metrics, finite) = compiled(np.uint32(seed), np.int32(first), state, _feed(batches, strategy, first, step))
      watch(step, metrics, finite)
      calling = [hook for hook in hooks if due(step, hook.every)]
      if calling or due(step, log_every):
        now = watch.settle()
        records = [now] if due(step, log_every) else []
        records += [hook(step, state, now) for hook in calling]
        for hook in hooks:
          for record in filter(None, records):
            hook.log(step, record)
      for hook in hooks:
        hook.tick(step)
      if due(step, save_every) or step == steps:
        save(step)
      if signals.stop_after(step):
        save(step)
        raise Stopped(signals.number, _farewell(signals.number, step, steps, run))
    return state


# ---- where a run begins ----


def _resume(model, batches, seed, strategy, run):
  """(step, state) of the newest whole checkpoint; None where there is none yet."""
  if not run:
    return None
  directory = runs.checkpoints(run)
  checkpoint.clean(directory)
  if not checkpoint.steps(directory):
    return None
  step, state = checkpoint.restore(directory, strategy.abstract_state(model.init, batches(0)))
  begun_with = checkpoint.read_extra(directory, step).get("seed", seed)
  if begun_with != seed:
    raise UserError(f"{run} was begun with seed {begun_with}, not {seed}: keep it, or name another directory")
  return step, state


def _save(run, step, state, seed):
  try:
    checkpoint.save(runs.checkpoints(run), step, state, extra={"seed": seed})
  except NonFiniteError as error:
    raise NonFiniteError(f"{error}; {_last_good(run)}") from None


def _check(name, value, low, high=None):
  if not isinstance(value, (int, np.integer)) or value < low or (high is not None and value > high):
    raise UserError(f"{name} {value}; take an integer {f'from {low} to {high}' if high else f'of at least {low}'}")


def _only_one(run):
  """One process at a time trains a run; the first of several holds the lock for all."""
  return runs.only_one(run) if run and jax.process_index() == 0 else contextlib.nullcontext()


class _Ends:
  """Whatever began is ended, however the loop ends: `begin` begins the hooks."""

  def __init__(self, hooks):
    self.hooks, self.begun = hooks, []

  def __enter__(self):
    return self.begin

  def begin(self, run, start, steps):
    for hook in self.hooks:
      hook.begin(run and pathlib.Path(run), start, steps)
      self.begun.append(hook)

  def __exit__(self, *_):
    for hook in reversed(self.begun):
      hook.end()


# ---- one call ----


def _calls(start: int, steps: int, per_call: int, intervals) -> Iterator[tuple[int, int]]:
  """Steps [first, last) of each call: `per_call` of them, or one where a hook must look in between.

  How long a call is depends only on where it begins: a run is cut the same wherever it was resumed, and is bitwise the same.
  """
  step = start
  while step < steps:
    last = step + per_call
    whole = last <= steps and all(step // every == (last - 1) // every for every in intervals if every)
    first, step = step, last if whole else step + 1
    yield first, step


def _feed(batches, strategy, first, last):
  """The batches of steps [first, last), on the devices: a dict for one step, a tuple of them for several."""
  placed = [strategy.place_batch(_local(batches, strategy, step)) for step in range(first, last)]
  return placed[0] if len(placed) == 1 else tuple(placed)


def _local(batches, strategy, step):
  """This process's rows of one batch."""
  if jax.process_count() > 1:
    return batches.rows(step, *strategy.local_rows(batches.batch_size))
  batch = batches(step)
  strategy.local_rows(len(next(iter(batch.values()))))
  return batch


# ---- finite or not ----


def _watched(step: Callable) -> Callable:
  """The step, which also tells in one number whether all its metrics are finite: the host reads that instead of them all."""

  def watched(key, state, batch):
    state, metrics = step(key, state, batch)
    finite = jnp.stack([jnp.isfinite(value).all() for value in metrics.values()]).all() if metrics else jnp.bool_(True)
    return state, (metrics, finite)

  return watched


class _Watch:
  """Looks at every step, two calls late: the device is never kept waiting for the host."""

  def __init__(self, run):
    self.run, self.pending = run, collections.deque()

  def __call__(self, step, metrics, finite):
    self.pending.append((step, metrics, finite))
    if len(self.pending) > 2:
      self._check(*self.pending.popleft())

  def settle(self) -> dict[str, float]:
    """Wait for the calls in flight; the metrics of the last step of the last."""
    metrics = {}
    while self.pending:
      step, metrics, finite = self.pending.popleft()
      self._check(step, metrics, finite)
    return {name: np.asarray(value).reshape(-1)[-1].item() for name, value in metrics.items()}

  def _check(self, last, metrics, finite):
    finite = np.atleast_1d(finite)
    if finite.all():
      return
    index = int(np.argmin(finite))
    values = {name: np.asarray(value).reshape(len(finite), -1)[index] for name, value in metrics.items()}
    name, value = next((name, value) for name, value in values.items() if not np.isfinite(value).all())
    raise NonFiniteError(f"step {last - len(finite) + index + 1}: {name} is {value[0]}; {_last_good(self.run)}")


def _last_good(run) -> str:
  saved = checkpoint.steps(runs.checkpoints(run)) if run else []
  return f"the last good checkpoint is of step {saved[-1]}, in {runs.checkpoints(run)}" if saved else "nothing was saved yet"


# ---- signals ----


class _Signals:
  """SIGTERM and Ctrl-C become a note that is read between two steps, so that compiling and saving are never cut short.

  Where several processes train one run, all must stop after the same step: there JAX catches SIGTERM and finds that step.
  """

  def __enter__(self):
    self.number, self.before = None, {}
    self.several = jax.process_count() > 1
    if threading.current_thread() is threading.main_thread():
      for number in [signal.SIGINT] if self.several else [signal.SIGINT, signal.SIGTERM]:
        self.before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    for number, handler in self.before.items():
      signal.signal(number, handler)

  def stop_after(self, step: int) -> bool:
    if self.several:
      from jax.experimental import multihost_utils

      if multihost_utils.reached_preemption_sync_point(step):
        self.number = self.number or signal.SIGTERM
        return True
      return False
    return self.number is not None

  def _note(self, number, frame):
    if self.number == signal.SIGINT == number:
      raise KeyboardInterrupt
    self.number = number
    if self.several:
      os.kill(os.getpid(), signal.SIGTERM)


def _farewell(number, step, steps, run):
  kept = f"saved in {run}, where the same command goes on" if run else "nothing was saved, for want of a run directory"
  return f"stopped by {signal.Signals(number).name} after step {step} of {steps}; {kept}"
