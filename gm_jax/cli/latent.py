"""`gm-jax latent RUN --task ...`: ways through a generator's latent space, and real images found there and changed."""

import dataclasses
import json

from gm_jax import runs
from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError

FINDING, MOVING = ("restarts", "steps", "encoder"), ("each", "attribute", "amount")
# Task: the options that it looks at, besides those of all.
TASKS = {"interpolate": ("each",), "arithmetic": MOVING, "project": FINDING, "edit": (*FINDING, *MOVING)}
SAMPLES = 2000  # of which it is known whether they have the attribute
EXAMPLES = 10_000  # of training images at most, for whatever learns from them


def latent(options, rest) -> int:
  """Writes a picture or an array; says how near projected images come, and how many have the attribute at each amount."""
  del rest
  _check(options)
  run = opened.open_run(options.run)
  if not hasattr(run.module, "latents"):
    raise UserError(f"{run.path} has no latent space here: {run.name} has no `latents`; dcgan_mnist has")
  if opened.batch_like(run)["image"].dtype != "uint8":
    raise UserError(f"{run.path} models points, not images: there is nothing to show")
  out = arrays.place(options, runs.pictures(options.run) / f"{options.task}.png")
  if "attribute" in TASKS[options.task] and options.attribute != "ink":
    _check_label(run, options.attribute)

  from gm_jax import parallel

  dataset = arrays.images_of(run, options) if "restarts" in TASKS[options.task] else None
  pictures = None if dataset is None else arrays.read(arrays.first(dataset, options.num), seed=0)
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  result, sheet, found = _worked(run, options, state, pictures)
  report = {
    "file": str(out),
    "task": options.task,
    "shape": [*result.shape],
    "metrics": {},
    **found,
    "protocol": {
      **({} if dataset is None else dataset.protocol),
      "experiment": run.name,
      "step": step,
      **{name: getattr(options, name) for name in ("num", "seed", *TASKS[options.task])},
      "config": dataclasses.asdict(run.config),
    },
  }
  arrays.keep(out, result, sheet)
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def _check(options):
  """UserError for numbers that no run could take."""
  check_range("--num", options.num, 1, 1000)
  check_range("--each", options.each, 2, 1000)
  check_range("--restarts", options.restarts, 0, 1000)
  check_range("--steps", options.steps, 0, 100_000)
  check_range("--encoder-steps", options.encoder_steps, 1, 10**6)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  if not 0 < options.amount <= 1000:
    raise UserError(f"--amount is {options.amount}; take a number above 0, at most 1000")
  if not (options.restarts or options.encoder):
    raise UserError("--restarts is 0; take a number from 1, or --encoder as well, whose guess is a start")


def _check_label(run: opened.Run, attribute: str):
  """UserError unless the attribute is a class of the run's data."""
  if not attribute.isdecimal():
    raise UserError(f"--attribute {attribute!r}: take ink, or the number of a class")
  if run.num_labels is None:
    raise UserError(f"--attribute {attribute}: the data of {run.name} have no labels; take ink")
  check_range("--attribute", int(attribute), 0, run.num_labels - 1)


def _worked(run, options, state, pictures):
  """(the result, the picture, what the report says besides)."""
  import jax
  import numpy as np

  from gm_jax import images, random
  from gm_jax.approximate import latents as paths
  from gm_jax.implicit import latents as laws
  from gm_jax.tasks import latents

  told = run.module.latents(run.config)
  draw = jax.jit(lambda state, z: told.write(latents.decoded(told.decoder(state), z)))
  decoded = lambda z: np.asarray(draw(state, z))  # [N, K, Z] -> uint8 [N, K, H, W, C]
  flat = lambda lines: lines.reshape(-1, *lines.shape[2:])
  rows = lambda lines: images.grid(flat(lines), columns=lines.shape[1])
  drawn = lambda num: laws.draw(told.law, random.stream(options.seed, random.SAMPLE), num)  # as `gm-jax sample` does

  if options.task == "interpolate":
    ends = drawn(2 * options.num)
    made = decoded(latents.between(ends[: options.num], ends[options.num :], options.each, told.path))
    return made, rows(made), {}

  metrics, shown = {}, []
  if pictures is not None:
    z, metrics, shown = _found(run, options, state, pictures, told, decoded)
  if options.task == "project":
    return z, images.grid(np.concatenate(shown), columns=len(pictures)), {"metrics": metrics}

  samples = drawn(SAMPLES)
  made = flat(decoded(samples.reshape(-1, 100, samples.shape[1])))
  has_it = _attribute(run, options, made)
  has = has_it(made)
  latents.check_both(has)
  if options.task == "arithmetic":
    z, way = samples[~has][: options.num], paths.attribute(samples[has], samples[~has])
    amounts = np.linspace(0, options.amount, options.each)
  else:
    way, amounts = latents.direction(samples, has), np.linspace(-options.amount, options.amount, options.each)
  made = decoded(latents.moved(z, way, amounts))
  shares = has_it(flat(made)).reshape(made.shape[:2]).mean(0)
  table = {"amounts": amounts.tolist(), "with_attribute": shares.tolist()}
  beside = [line[:, None] for line in shown]
  return made, rows(np.concatenate([*beside, made], 1)), {"metrics": metrics, **table}


def _found(run, options, state, pictures, told, decoded):
  """(z [N, Z] of real images, metrics, lines of images: the real ones and what was made of them)."""
  import jax
  import numpy as np

  from gm_jax import evaluation, random
  from gm_jax.metrics import quality
  from gm_jax.tasks import latents, restoration

  lines, metrics = [pictures], {}

  def note(name, z):
    lines.append(decoded(z[:, None])[:, 0])
    near = np.minimum(quality.psnr(lines[-1], pictures), restoration.EXACT)
    metrics[name] = evaluation.summary("psnr", np.asarray(near))
    return z

  guess = None
  if options.encoder:
    encoder = latents.encoder_for(told.encoder, told.law)
    real = arrays.read(_train(run, options), seed=0)

    def learn_and_look(key, state, real, pictures):
      real, pictures = told.read(real), told.read(pictures)
      fitted = dict(real=real, steps=options.encoder_steps)
      variables = latents.learn_encoder(encoder, told.decoder(state), told.law, key, **fitted)
      return latents.encode(encoder, variables, pictures)

    guess = note("psnr_encoder", jax.jit(learn_and_look)(random.stream(options.seed, random.INIT), state, real, pictures))

  def find(key, state, pictures, guess):
    how = dict(guess=guess, restarts=options.restarts, steps=options.steps)
    return latents.project(told.decoder(state), told.read(pictures), key, told.law, **how)[0]

  z = note("psnr", jax.jit(find)(random.stream(options.seed, random.EVALUATE), state, pictures, guess))
  return z, metrics, lines


def _attribute(run, options, samples):
  """Which images have it, `uint8 [N, H, W, C] -> bool [N]`: more ink than half of the samples, or a class by its pixels."""
  import numpy as np

  from gm_jax.metrics import probe

  if options.attribute == "ink":
    ink = lambda pictures: pictures.reshape(len(pictures), -1).mean(1)
    half = np.median(ink(samples))
    return lambda pictures: ink(pictures) > half
  train = _train(run, options)
  pixels = lambda pictures: pictures.reshape(len(pictures), -1) / np.float32(255)
  fitted = probe.fit(pixels(arrays.read(train, seed=0)), train.arrays["label"], run.num_labels, penalty=1e-3)
  return lambda pictures: probe.predict(fitted, pixels(pictures)) == int(options.attribute)


def _train(run, options):
  """Training examples, in memory."""
  config = dataclasses.replace(run.config, data_dir=options.data_dir) if options.data_dir else run.config
  return arrays.first(run.module.data(config)["train"], EXAMPLES)


def _text(report: dict) -> str:
  lines = [f"{report['task']}: {report['file']}", ""]
  if "amounts" in report:
    shares = [f"{share:.2f}" for share in report["with_attribute"]]
    amounts = [f"{amount:+.2g}" for amount in report["amounts"]]
    lines += [tables.grid(["amount", *amounts], [["share with the attribute", *shares]], texts=1), ""]
  return "\n".join([*lines, tables.metrics(report)])
