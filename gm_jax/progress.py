"""Where a run is, how fast it goes and how long it will still take: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable

import jax

from gm_jax.hooks import Hook, scalars


class Progress(Hook):
  """A bar that moves ten times a second; or lines: after the first step, then at intervals that double from 1 s to a minute."""

  def __init__(self, stream=None, name: str = "training", clock: Callable[[], float] = time.monotonic):
    self.stream, self.name, self.clock = stream or sys.stderr, name, clock

  def begin(self, run, step, steps):
    self.steps, self.numbers, self.bar = steps, "", None
    self.quiet = jax.process_index() != 0
    self.began = self.shown = self.clock()
    self.compiled = None  # (step, time) after the first call, so that rates leave compilation out
    self.interval = 1.0
    if not self.quiet and self.stream.isatty():
      self.bar, self.interval = _rich_bar(self.stream, self.name, step, steps), 0.1

  def tick(self, step):
    now = self.clock()
    first = self.compiled is None
    if first:
      self.compiled = step, now
    if self.quiet or not (first or now - self.shown >= self.interval or step == self.steps):
      return
    pace = f"first call took {now - self.began:.1f} s" if first else self._pace(step, now)
    self.shown = now
    if self.bar:
      self.bar.update(0, completed=step, pace=pace, numbers=self.numbers, refresh=True)
    else:
      print(f"{self.name}: step {step}/{self.steps}  {pace}{self.numbers}", file=self.stream, flush=True)
      self.interval = 1.0 if first else min(60.0, 2 * self.interval)

  def log(self, step, record):
    self.numbers = "".join(f"  {name} {value:.4g}" for name, value in scalars(record))

  def end(self):
    if self.bar:
      self.bar.stop()

  def _pace(self, step, now):
    since, then = self.compiled
    rate = max(step - since, 1) / max(now - then, 1e-9)
    return f"{rate:.3g} steps/s, {_duration((self.steps - step) / rate)} left"


def _rich_bar(stream, name, step, steps):
  from rich import progress
  from rich.console import Console

  text = progress.TextColumn("{task.fields[pace]}{task.fields[numbers]}")
  columns = [progress.TextColumn(name), progress.BarColumn(), progress.MofNCompleteColumn(), text]
  # No thread of its own to refresh it: that would take turns with the loop for the interpreter.
  bar = progress.Progress(*columns, console=Console(file=stream), auto_refresh=False)
  bar.add_task(name, total=steps, completed=step, pace="compiling", numbers="")
  bar.start()
  bar.refresh()
  return bar


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
