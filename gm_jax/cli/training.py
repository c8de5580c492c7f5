"""From an experiment and its configuration to a run: data, devices, hooks, loop."""

import dataclasses
import pathlib
from types import ModuleType

import jax

from experiments import base
from gm_jax import checkpoint, data, evaluation, hooks, parallel, runs
from gm_jax.cli import cache, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError
from gm_jax.progress import Progress
from gm_jax.train import train

CHANGEABLE = [f"config.{field}" for field in base.FREE]


def train_experiment(name: str, module: ModuleType, config: base.Run, directory: pathlib.Path) -> None:
  """Train, or go on training, the run in `directory`; says what it does, where the samples are and what to do next.

  Everything that can be wrong with the input is found before the directory is touched.
  """
  cache.switch_on()
  splits = module.data(config)
  batches = data.batches(splits["train"], config.batch_size, config.seed)
  strategy = parallel.BY_NAME[config.strategy]()
  strategy.local_rows(config.batch_size)
  model = module.model(config)
  pictures = hooks.Pictures(config.sample_every or config.steps, model, seed=config.seed, num=config.num_samples)
  looking = [Progress(name=name), pictures, *_own_hooks(module, config), *_extra_hooks(config)]
  if config.evaluate_every:
    looking.append(hooks.Evaluation(config.evaluate_every, _scores(module, config, model, splits["test"], strategy)))

  if jax.process_index() == 0:
    description = opened.describe(name, config, batches(0), splits["train"])
    looking.append(_Describe(directory, description))
  done = max(checkpoint.steps(runs.checkpoints(directory)), default=0)
  verb = f"{directory} has taken {done} steps; resuming" if done else "training"
  where = f"{strategy.num_devices} {jax.default_backend()} device(s), in {directory}"
  say(f"{verb} {name} to step {config.steps}, {config.batch_size} examples a step on {where}")
  state = train(
    model,
    batches,
    seed=config.seed,
    steps=config.steps,
    run=directory,
    strategy=strategy,
    hooks=looking,
    log_every=config.log_every,
    save_every=config.save_every,
  )
  say(f"samples: {runs.samples(directory) / f'{config.steps:08d}.png'}")
  _show(module, config, state, directory)
  say(f"next: gm-jax evaluate {directory}")
  if jax.process_count() == 1 and (found := over_models(module, config, state, config.seed)):
    say(tables.over_models(found))


def draw_pictures(module: ModuleType, config: base.Run, state, directory: pathlib.Path) -> list[pathlib.Path]:
  """What the experiment shows besides samples, RUN/pictures/NAME.png; UserError where a package for drawing is missing."""
  paths = []
  for name, picture in module.pictures(config, state).items():
    paths.append(runs.pictures(directory) / f"{name}.png")
    runs.write_atomically(paths[-1], hooks.encode(picture))
  return paths


def _show(module, config, state, directory) -> None:
  """Pictures at the end of training; the run is whole without them."""
  if not hasattr(module, "pictures"):
    return
  if jax.process_count() > 1:  # no process holds the whole state
    return say(f"pictures: gm-jax picture {directory}")
  try:
    say(f"pictures: {', '.join(map(str, draw_pictures(module, config, state, directory)))}")
  except UserError as error:
    say(f"pictures: none yet ({error}); then gm-jax picture {directory}")


class _Describe(hooks.Hook):
  """Writes config.json: at once for a new run, and for an old one when its checkpoint has been read and found good."""

  def __init__(self, directory: pathlib.Path, description: dict):
    self.directory, self.description = directory, description
    if not runs.check_run(directory, description, free=CHANGEABLE):
      runs.open_run(directory, description, free=CHANGEABLE)

  def begin(self, run, step, steps):
    runs.open_run(self.directory, self.description, free=CHANGEABLE)


def say(line: str) -> None:
  """The first of several processes speaks for all."""
  if jax.process_index() == 0:
    print(line, flush=True)


def split_cpu(num: int | None) -> None:
  """Count the CPU as `num` devices, before JAX looks for any; None leaves it as it is."""
  if num is not None:
    check_range("--cpu-devices", num, 1, 1024)
    parallel.split_cpu(num)


def join_processes(processes: int | str | None, process_id: int | None, coordinator: str | None) -> None:
  """Become one of several processes where the options say so, before JAX looks for devices."""
  if processes in (None, "auto"):
    if (process_id, coordinator) != (None, None):
      raise UserError("--process-id and --coordinator go with --processes N")
    return parallel.initialize_processes() if processes else None
  if process_id is None or coordinator is None:
    raise UserError(f"--processes {processes} needs --process-id and --coordinator HOST:PORT as well; or take --processes auto")
  if not 0 <= process_id < processes:
    raise UserError(f"--process-id is {process_id}; take a number from 0 to {processes - 1}")
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal():
    raise UserError(f"--coordinator {coordinator!r} is not HOST:PORT")
  parallel.initialize_processes(coordinator, processes, process_id)


def measure_of(module: ModuleType, config: base.Run, model):
  """What an experiment is scored by, and what its numbers depend on besides the data: `(measure, protocol)`."""
  measure = module.measure(config) if hasattr(module, "measure") else model.evaluate
  return measure, module.protocol(config) if hasattr(module, "protocol") else {}


def over_models(module: ModuleType, config: base.Run, state, seed: int) -> dict:
  """What an experiment tells of the models that it trains at once, `over_models(config, state, seed)`: mean and deviation."""
  if not hasattr(module, "over_models"):
    return {}
  found = module.over_models(config, state, seed)
  return {name: evaluation.over_models(name, values) for name, values in found.items()}


def _own_hooks(module: ModuleType, config: base.Run) -> list[hooks.Hook]:
  """What the experiment looks at while it trains, besides its pictures: its `hooks(config)`."""
  return module.hooks(config) if hasattr(module, "hooks") else []


def _extra_hooks(config: base.Run) -> list[hooks.Hook]:
  """What needs a package that is not required; UserError says which."""
  wanted = [hooks.TensorBoard()] if config.tensorboard else []
  return [*wanted, hooks.WandB(config=dataclasses.asdict(config))] if config.wandb else wanted


def _scores(module, config, model, dataset, strategy):
  """The means over a split as a function of the state: what is logged while training, by the model's own cheap `evaluate`."""

  def scores(state):
    report = evaluation.evaluate(
      model.evaluate, state, dataset, batch_size=config.batch_size, seed=config.seed, strategy=strategy
    )
    return {name: score["mean"] for name, score in report["metrics"].items()}

  return scores
