"""`gm-jax restore RUN...`: images corrupted, and restored by each run's model and by simple methods: a table and pictures."""

import dataclasses
import json

from gm_jax import runs
from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError


def restore(options, rest) -> int:
  """Writes a picture for each run; prints PSNR and SSIM of every method, those of one run on the same images."""
  del rest
  check_range("--num", options.num, 1, 2**20)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  if options.out and len(options.run) > 1:
    raise UserError(f"--out {str(options.out)!r} is the picture of one run, and there are {len(options.run)}; leave it out")
  if options.out and options.out.suffix != ".png":
    raise UserError(f"--out {str(options.out)!r}: take a name that ends in .png")
  if options.out:
    arrays.check_place(options.out)
  opened_runs = [opened.open_run(path) for path in options.run]
  for run in opened_runs:
    if not hasattr(run.module, "restorer"):
      raise UserError(f"{run.path} cannot restore images: {run.name} was not trained to; restore_mnist and restore_cifar10 are")
  datasets = [arrays.images_of(run, options) for run in opened_runs]
  reports = [_restore(run, dataset, options) for run, dataset in zip(opened_runs, datasets)]
  print(json.dumps({"runs": reports}, allow_nan=False) if options.json else _text(reports))
  return 0


def _restore(run: opened.Run, dataset, options) -> dict:
  """One run's report; its picture is written."""
  import jax

  from gm_jax import evaluation, parallel
  from gm_jax.tasks import restoration

  pictures = arrays.read(arrays.first(dataset, options.num), seed=0)
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  compared = restoration.compare(run.module.restorer(run.config), state, pictures, jax.random.key(options.seed))
  out = options.out or runs.pictures(run.path) / "restored.png"
  arrays.write_picture(out, restoration.sheet(compared.pictures))
  return {
    "run": str(run.path),
    "file": str(out),
    "methods": {
      method: {name: evaluation.summary(name, values) for name, values in scores.items()}
      for method, scores in compared.scores.items()
    },
    "protocol": {
      **dataset.protocol,
      "experiment": run.name,
      "step": step,
      "num": len(pictures),
      "seed": options.seed,
      "config": dataclasses.asdict(run.config),
    },
  }


def _text(reports: list) -> str:
  shown = lambda score: f"{score['mean']:.3f}" + ("" if score["stderr"] is None else f" +- {score['stderr']:.3f}")
  rows = [
    [report["run"], method, shown(scores["psnr"]), shown(scores["ssim"])]
    for report in reports
    for method, scores in report["methods"].items()
  ]
  lines = [f"{report['file']}: lines in the order original, {', '.join(report['methods'])}" for report in reports]
  protocols = [f"protocol: {tables.protocol(report['protocol'])}" for report in reports]
  return "\n".join([tables.grid(["run", "by", "PSNR, dB", "SSIM"], rows, texts=2), "", *lines, *protocols])
