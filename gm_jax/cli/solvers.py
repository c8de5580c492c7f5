"""`gm-jax solvers RUN`: solvers by numbers of evaluations, each one's distance to the sample that all converge to."""

import dataclasses
import json

from gm_jax.cli import opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError


def solvers(options, rest) -> int:
  """Prints the table; writes nothing."""
  del rest
  check_range("--num", options.num, 1, 2**16)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  for budget in options.evaluations:
    check_range("--evaluations", budget, 1, 1000)
  run, editor = open_diffusion(options.run)

  import numpy as np

  from gm_jax import parallel, random
  from gm_jax.tasks import solving

  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  denoise = editor.denoiser(state)
  for transform in editor.guidance if options.guided else ():
    denoise = transform(denoise)
  label = np.arange(options.num, dtype=np.int32) % editor.num_classes if options.guided and editor.num_classes else None
  shape = opened.batch_like(run)["image"].shape[1:]
  start = random.normal(random.stream(options.seed, random.SAMPLE), options.num, shape)
  told = lambda x, log_snr: denoise(x, log_snr, label)
  found = solving.distances(told, editor.grid, start, options.evaluations)
  column = lambda of: {name: [None if one is None else of(one) for one in row] for name, row in found.items()}
  report = {
    "evaluations": options.evaluations,
    "distances": column(lambda one: one.rms),
    "median_distances": column(lambda one: one.median),
    "protocol": {
      "experiment": run.name,
      "step": step,
      "num": options.num,
      "seed": options.seed,
      "guided": options.guided,
      "converged": "DPM++ 3M in 400 steps",
      "config": dataclasses.asdict(run.config),
    },
  }
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def open_diffusion(path):
  """A run and what it says of its denoiser; UserError where it has none."""
  run = opened.open_run(path)
  if not hasattr(run.module, "editor"):
    raise UserError(f"{run.path} has no denoiser: {run.name} is no diffusion model; ddpm_mnist is one")
  return run, run.module.editor(run.config)


def _text(report: dict) -> str:
  shown = lambda value: "-" if value is None else f"{value:.4f}"
  parts = []
  for kind, name in (("root mean square", "distances"), ("median", "median_distances")):
    rows = [[solver, *map(shown, values)] for solver, values in report[name].items()]
    grid = tables.grid(["evaluations", *map(str, report["evaluations"])], rows, texts=1)
    parts.append(f"{kind} distance to the converged sample, from the same noise\n\n{grid}\n\n")
  return f"{''.join(parts)}protocol: {tables.protocol(report['protocol'])}"
