"""What the commands do.  Each takes the parsed options (and what was left over) and returns an exit code.

The order within each: whatever can be wrong with the input, then the first byte that is written.
"""

import dataclasses
import json
import pathlib

import experiments
from gm_jax import runs
from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.classify import classify
from gm_jax.cli.complete import complete
from gm_jax.cli.compress import compress, decompress
from gm_jax.cli.edit import edit
from gm_jax.cli.latent import latent
from gm_jax.cli.likelihood import likelihood
from gm_jax.cli.options import alternatives, check_range, parse
from gm_jax.cli.outliers import outliers
from gm_jax.cli.probe import probe
from gm_jax.cli.restore import restore
from gm_jax.cli.solvers import solvers
from gm_jax.errors import UserError

FAMILIES = ("tractable", "approximate", "implicit", "score", "reconstruction")
DEMO = "vae_digits"


def list_experiments(options, rest) -> int:
  """By family, a line each."""
  del options, rest
  headers = experiments.headers()
  width = max((len(header.name) for header in headers), default=0)
  for family in dict.fromkeys([*FAMILIES, *(header.family for header in headers)]):
    members = [header for header in headers if header.family == family]
    if members:
      print(family or "others")
    for header in members:
      print(f"  {header.name:<{width}}  {header.summary}{f'  [{header.promise}]' if header.promise else ''}")
  return 0


def train(options, rest) -> int:
  """Train an experiment, or resume it."""
  module = experiments.load(options.name)
  directory = options.run or pathlib.Path("runs") / options.name
  before = opened.open_run(directory) if runs.is_run(directory) else None
  if before and before.name != options.name:
    raise UserError(f"{directory} is a run of {before.name}, not of {options.name}; name another directory with --run")
  config = parse(module.Config, rest, f"gm-jax train {options.name}", before and before.config)

  from gm_jax.cli import training

  training.split_cpu(options.cpu_devices)
  training.join_processes(options.processes, options.process_id, options.coordinator)
  training.train_experiment(options.name, module, config, directory)
  return 0


def demo(options, rest) -> int:
  """The shortest way to a picture."""
  del rest
  module = experiments.load(DEMO)

  from gm_jax.cli import training

  training.say("A small variational autoencoder learns the embedded digits: well under a minute on two cores.")
  training.train_experiment(DEMO, module, module.Config(), options.run)
  return 0


def sample(options, rest) -> int:
  """Images of a run, as a picture or an array."""
  del rest
  check_range("--num", options.num, 1, 2**31 - 1)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  run = opened.open_run(options.run)
  out = arrays.place(options, runs.samples(options.run) / f"seed-{options.seed}.png")
  if options.label is not None:
    if not run.num_labels:
      raise UserError(f"--label {options.label}: the data of {options.run} have no labels")
    check_range("--label", options.label, 0, run.num_labels - 1)

  from gm_jax import parallel, sampling

  model = run.module.model(run.config)
  step, state = opened.restore(run, model, parallel.dp())
  if options.label is not None and not opened.uses_labels(run, model, state):
    raise UserError(f"--label {options.label}: {run.name} is not a conditional model; leave it out")
  condition = None if options.label is None else [options.label] * options.num
  images = sampling.draw(model, state, seed=options.seed, num=options.num, condition=condition)
  arrays.write(out, images)
  print(f"{options.num} samples of {options.run} after step {step}, seed {options.seed}: {out}")
  return 0


def evaluate(options, rest) -> int:
  """A run's scores on a whole split."""
  del rest
  check_range("--seed", options.seed, 0, 2**32 - 1)
  run = opened.open_run(options.run)

  from gm_jax import evaluation, parallel
  from gm_jax.cli import training

  training.split_cpu(options.cpu_devices)
  splits = run.module.data(run.config)
  if options.split not in splits:
    raise UserError(f"unknown split {options.split!r} of {run.name}; {alternatives(options.split, splits)}")
  model = run.module.model(run.config)
  strategy = parallel.BY_NAME[run.config.strategy]()
  step, state = opened.restore(run, model, strategy)
  measure, protocol = training.measure_of(run.module, run.config, model)
  report = evaluation.evaluate(
    measure,
    state,
    splits[options.split],
    batch_size=run.config.batch_size,
    seed=options.seed,
    strategy=strategy,
    protocol={"experiment": run.name, "step": step, **protocol, "config": dataclasses.asdict(run.config)},
  )
  report["metrics"] |= training.over_models(run.module, run.config, state, options.seed)
  text = json.dumps(report, allow_nan=False)
  runs.write_atomically(runs.report_file(options.run), f"{text}\n".encode())
  print(text if options.json else tables.metrics(report))
  return 0


def picture(options, rest) -> int:
  """What an experiment shows besides samples."""
  del rest
  run = opened.open_run(options.run)
  if not hasattr(run.module, "pictures"):
    raise UserError(f"{run.name} has no pictures besides its samples; gm-jax sample {options.run} draws those")

  from gm_jax import parallel
  from gm_jax.cli import training

  _, state = opened.restore(run, run.module.model(run.config), parallel.single())
  for path in training.draw_pictures(run.module, run.config, state, options.run):
    print(path)
  return 0


def parameters(options, rest) -> int:
  """The curse of dimensionality as a table."""
  del rest
  for name in ("height", "width", "channels"):
    check_range(f"--{name}", getattr(options, name), 1, 1_000_000)
  check_range("--levels", options.levels, 2, 65_536)

  from gm_jax.tasks import parameters as counted

  shape = options.height, options.width, options.channels
  rows = counted.table(shape, options.levels)
  texts = {model: counted.written(model, count, shape, options.levels) for model, count in rows.items()}
  if options.json:
    print(json.dumps({model: count if count < 2**53 else texts[model] for model, count in rows.items()}))
    return 0
  print(f"free parameters of distributions over images {' x '.join(map(str, shape))} with {options.levels} levels")
  width, digits = (max(map(len, column)) for column in (texts, texts.values()))
  for model, text in texts.items():
    print(f"  {model:<{width}}  {text:>{digits}}")
  return 0


def verify(options, rest) -> int:
  """Every file of every checkpoint, and whether it is what was written."""
  del rest
  if not runs.is_run(options.run):
    raise UserError(f"{options.run} is not a run: there is no {runs.config_file(options.run)}")

  from gm_jax import checkpoint

  directory, whole = runs.checkpoints(options.run), []
  for step in checkpoint.steps(directory):
    path = directory / f"{step:08d}"
    problems = checkpoint.problems(path)
    whole.append(not problems)
    # Without the manifest there is nothing to hold the other files against.
    sealed = not any(problem.startswith(checkpoint.MANIFEST) for problem in problems)
    for file in sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()):
      if not any(problem.startswith(f"{file} ") for problem in problems):
        print(f"{path.name}/{file}: {'ok' if sealed else 'unknown'}")
    for problem in problems:
      print(f"{path.name}/{problem}: BAD")
  print(f"{options.run}: {sum(whole)} of {len(whole)} checkpoints are whole")
  return 0 if whole and all(whole) else 1


def doctor(options, rest) -> int:
  """What this machine has, and whether it will do."""
  del rest
  from gm_jax.cli.doctor import examine

  lines, problems = examine(options.data_dir)
  print(*lines, sep="\n")
  print(f"verdict    {'not ready: ' + '; '.join(problems) if problems else 'ready'}")
  return 1 if problems else 0


COMMANDS = {
  "demo": demo,
  "list": list_experiments,
  "train": train,
  "sample": sample,
  "evaluate": evaluate,
  "classify": classify,
  "outliers": outliers,
  "compress": compress,
  "decompress": decompress,
  "complete": complete,
  "restore": restore,
  "edit": edit,
  "latent": latent,
  "probe": probe,
  "solvers": solvers,
  "likelihood": likelihood,
  "picture": picture,
  "parameters": parameters,
  "verify": verify,
  "doctor": doctor,
}
