"""`gm-jax edit RUN --task ...`: images mixed, varied, filled, continued or turned into noise, by a diffusion model's run."""

import dataclasses
import json

from gm_jax import runs
from gm_jax.cli import arrays, complete, opened, solvers, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError

# Task: the options that it looks at, besides those of all.
TASKS = {
  "interpolate": ("each", "strength"),
  "image-to-image": ("each", "strength"),
  "inpaint": ("each", "known", "jump", "resamples"),
  "outpaint": ("each", "margins", "jump", "resamples"),
  "invert": (),
}


def edit(options, rest) -> int:
  """Writes a picture or an array; says what it was asked for, and for `invert` how well the images come back."""
  del rest
  _check(options)
  run, editor = solvers.open_diffusion(options.run)
  if opened.batch_like(run)["image"].dtype != "uint8":
    raise UserError(f"{run.path} models points, not images: there is nothing to edit")
  out = arrays.place(options, runs.pictures(options.run) / f"{options.task}.png")
  if options.label is not None and not editor.num_classes:
    raise UserError(f"--label {options.label}: {run.name} was not told any labels; leave it out")
  if options.label is not None:
    check_range("--label", options.label, 0, editor.num_classes - 1)

  import numpy as np

  from gm_jax import evaluation, parallel
  from gm_jax.metrics import quality
  from gm_jax.tasks import restoration

  dataset = arrays.images_of(run, options)
  pairs = options.task == "interpolate"
  pictures = arrays.read(arrays.first(dataset, options.num * (1 + pairs)), seed=0)
  if pairs and len(pictures) < 2:
    raise UserError("--task interpolate takes two images or more")
  if options.task == "image-to-image" and options.strength is None:
    options.strength = 0.5
  if options.task == "outpaint" and options.margins is None:
    options.margins = [0, 0, pictures.shape[2] // 2, pictures.shape[2] // 2]
  known = complete.known_of(options.known, pictures.shape[1:3]) if options.task == "inpaint" else None
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  result, lines = _edited(editor, options, state, pictures, known)

  metrics = {}
  if options.task == "invert":
    metrics["psnr"] = evaluation.summary("psnr", np.minimum(quality.psnr(lines[-1], pictures), restoration.EXACT))
  report = {
    "file": str(out),
    "task": options.task,
    "shape": [*result.shape],
    "metrics": metrics,
    "protocol": {
      **dataset.protocol,
      "experiment": run.name,
      "step": step,
      **{name: getattr(options, name) for name in ("num", "steps", "label", "seed", *TASKS[options.task])},
      "config": dataclasses.asdict(run.config),
    },
  }
  arrays.keep(out, result, _sheet(lines))
  print(json.dumps(report, allow_nan=False) if options.json else f"{options.task}: {out}\n\n{tables.metrics(report)}")
  return 0


def _check(options):
  """UserError for numbers that no run could take."""
  check_range("--num", options.num, 1, 1000)
  check_range("--each", options.each, 2 if options.task == "interpolate" else 1, 1000)
  check_range("--steps", options.steps, 2, 10_000)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  check_range("--jump", options.jump, 1, 10_000)
  check_range("--resamples", options.resamples, 1, 1000)
  for margin in options.margins or ():
    check_range("--margins", margin, 0, 10_000)
  if options.strength is not None and not 0 <= options.strength <= 1:
    raise UserError(f"--strength is {options.strength}; take a number from 0 to 1")
  if options.task in ("inpaint", "outpaint") and options.resamples > 1 and options.jump >= options.steps:
    raise UserError(f"--jump is {options.jump} of --steps {options.steps}; take shorter jumps or more steps")


def _edited(editor, options, state, pictures, known):
  """(the result, lines of images [N, H, W, C] for the picture)."""
  import jax
  import numpy as np

  from gm_jax import images
  from gm_jax.tasks import editing, inpainting

  grid = editor.grid(options.steps)

  def guided(state):
    denoise = editor.denoiser(state)
    for transform in editor.guidance:
      denoise = transform(denoise)
    return denoise

  def compiled(task, **told):
    """`task(denoiser, *arrays)` as a function of arrays, told the grid and the label; uint8 arrays are read."""
    read = lambda array: editor.read(array) if array.dtype == np.uint8 else array

    def run(state, *arrays):
      label = None if options.label is None else np.full(len(arrays[0]), options.label, np.int32)
      return task(guided(state), *map(read, arrays), grid=grid, label=label, **told)

    jitted = jax.jit(run)
    return lambda *arrays: jitted(state, *arrays)

  key_of = lambda index: jax.random.fold_in(jax.random.key(options.seed), index)

  def several(task, **told):
    draw = compiled(lambda *arguments, **told: editor.write(task(*arguments, **told)), **told)
    return np.stack([np.asarray(draw(pictures, key_of(index))) for index in range(options.each)])

  if options.task == "invert":
    latents = compiled(editing.invert)(pictures)
    rebuilt = np.asarray(editor.write(compiled(editing.generate)(latents)))
    return np.asarray(latents), [pictures, np.asarray(images.from_symmetric(latents / 3)), rebuilt]
  if options.task == "interpolate":
    half, weights = len(pictures) // 2, np.linspace(0, 1, options.each)
    first, second = pictures[:half], pictures[half : 2 * half]
    if options.strength is None:
      mix = compiled(lambda denoise, *ends, **told: editing.interpolate(denoise, *ends, weights, **told))
    else:
      mix = lambda denoise, *ends, **told: editing.blend(denoise, *ends, weights, key_of(0), **told)
      mix = compiled(mix, strength=options.strength)
    mixed = np.asarray(editor.write(mix(first, second)))
    return mixed, [first, *mixed, second]
  if options.task == "image-to-image":
    drawn = several(editing.image_to_image, strength=options.strength)
    return drawn, [pictures, *drawn]

  walk = dict(jump=options.jump, resamples=options.resamples)
  if options.task == "inpaint":
    fill = lambda denoise, x_0, key, **told: inpainting.inpaint(denoise, x_0, known, key, **told)
    # What is known is put in once more, for experiments that cannot read and write every bit.
    drawn = np.where(known[None, None, :, :, None], pictures[None], several(fill, **walk))
    return drawn, [pictures, np.where(known[None, :, :, None], pictures, 128).astype(np.uint8), *drawn]
  top, bottom, left, right = options.margins
  drawn = several(inpainting.outpaint, margins=(top, bottom, left, right), **walk)
  height, width = pictures.shape[1:3]
  drawn[:, :, top : top + height, left : left + width] = pictures
  framed = np.pad(pictures, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=128)
  return drawn, [framed, *drawn]


def _sheet(lines):
  import numpy as np

  from gm_jax import images

  return images.grid(np.concatenate(lines), columns=len(lines[0]))
