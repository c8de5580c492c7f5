"""`gm-jax likelihood RUN`: a diffusion model's variational bound and its flow's density, of the same images, in bits/dim."""

import dataclasses
import json

from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.cli.solvers import open_diffusion
from gm_jax.errors import UserError


def likelihood(options, rest) -> int:
  """Prints both with their parts and errors; writes nothing."""
  del rest
  check_range("--num", options.num, 1, 2**20)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  check_range("--levels", options.levels, 1, 2**16)
  check_range("--steps", options.steps, 2, 2**16)
  check_range("--probes", options.probes, 1, 2**16)
  if options.steps % 2:
    raise UserError(f"--steps is {options.steps}; take an even number, half of which say how far off it is")
  run, editor = open_diffusion(options.run)
  dataset = arrays.first(arrays.images_of(run, options), options.num)

  from gm_jax import evaluation, parallel
  from gm_jax.score import likelihood as likelihoods
  from gm_jax.score import noise

  clock = noise.uniform(options.highest, options.lowest).log_snr
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())

  def measure(key, state, batch):
    denoise, label = editor.denoiser(state), batch.get("label") if options.labels else None
    told = lambda x, log_snr: denoise(x, log_snr, label)
    how = dict(num_levels=options.levels, num_steps=options.steps, num_probes=options.probes)
    return likelihoods.scores(told, clock, batch["image"], key, **how)

  asked = {name: getattr(options, name) for name in ("levels", "steps", "probes", "labels", "highest", "lowest")}
  protocol = {"experiment": run.name, "step": step, **asked, "config": dataclasses.asdict(run.config)}
  if opened.batch_like(run)["image"].dtype == "uint8":
    protocol["bin_width"] = 1.0
  place = dict(batch_size=options.batch_size, seed=options.seed, strategy=parallel.single())
  report = evaluation.evaluate(measure, state, dataset, **place, protocol=protocol)
  print(json.dumps(report, allow_nan=False) if options.json else tables.metrics(report))
  return 0
