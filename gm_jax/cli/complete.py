"""`gm-jax complete RUN`: images with holes, filled by a run's model, and how likely it holds what was really there."""

import dataclasses
import json
import pathlib

from gm_jax import runs
from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError


def complete(options, rest) -> int:
  """Writes a picture or an array; prints the nats of the true holes given the rest."""
  del rest
  check_range("--num", options.num, 1, 2**20)
  check_range("--each", options.each, 1, 1000)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  run = opened.open_run(options.run)
  out = arrays.place(options, runs.pictures(options.run) / "completions.png")
  if not any(hasattr(run.module, name) for name in ("completion", "conditionals")):
    can = "autoregressive models, networks learnt by counting, Chow-Liu trees and mixtures of Bernoullis"
    raise UserError(f"{run.path} cannot complete images: {run.name} gives no p(hole | rest), which {can} do")

  import jax
  import numpy as np

  from gm_jax import evaluation, parallel
  from gm_jax.tasks import completion

  dataset = arrays.images_of(run, options)
  pictures = arrays.read(arrays.first(dataset, options.num), seed=0)
  known = known_of(options.known, pictures.shape[1:3])
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  if hasattr(run.module, "completion"):
    fill = run.module.completion(run.config)
  else:
    fill = completion.in_order(run.module.conditionals(run.config))
  nats = -np.asarray(fill.log_prob(state, jax.random.key(options.seed), pictures, known))
  drawn = completion.several(fill, state, options.seed, pictures, known, options.each)

  hidden = int((~known).sum()) * pictures.shape[3]
  report = {
    "file": str(out),
    "metrics": {"hole": evaluation.summary("hole", nats)},
    "nats": nats.tolist(),
    "hidden_dims": hidden,
    "protocol": {
      **dataset.protocol,
      "experiment": run.name,
      "step": step,
      "known": options.known,
      "seed": options.seed,
      "config": dataclasses.asdict(run.config),
    },
  }
  arrays.keep(out, drawn, completion.sheet(pictures, known, drawn))
  print(json.dumps(report, allow_nan=False) if options.json else _text(report, drawn.shape))
  return 0


def known_of(name: str, shape: tuple):
  """bool [H, W]: a region by its name, or the array in a .npy file."""
  from gm_jax.tasks import completion

  if not name.endswith(".npy"):
    return completion.region(name, shape)
  known = arrays.load(pathlib.Path(name), "--known")
  if known.dtype != bool or known.shape != shape:
    raise UserError(f"--known {name!r} holds {known.dtype} {known.shape}; take bool {shape}, true where a pixel is known")
  return known


def _text(report: dict, shape: tuple) -> str:
  head = f"{shape[0]} completions of each of {shape[1]} images, {report['hidden_dims']} hidden dimensions: {report['file']}"
  return f"{head}\n\n{tables.metrics(report)}"
