"""`gm-jax restore RUN`: images corrupted and restored, by the run's model and by simple methods, in a table and a picture."""

import dataclasses
import json

from gm_jax import runs
from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError


def restore(options, rest) -> int:
  """Writes the picture; prints PSNR and SSIM of every method on the same images."""
  del rest
  check_range("--num", options.num, 1, 2**20)
  check_range("--seed", options.seed, 0, 2**32 - 1)
  run = opened.open_run(options.run)
  out = options.out or runs.pictures(options.run) / "restored.png"
  if out.suffix != ".png":
    raise UserError(f"--out {str(out)!r}: take a name that ends in .png")
  if options.out:
    arrays.check_place(out)
  if not hasattr(run.module, "restorer"):
    raise UserError(f"{run.path} cannot restore images: {run.name} was not trained to; restore_mnist and restore_cifar10 are")

  import jax

  from gm_jax import evaluation, parallel
  from gm_jax.tasks import restoration

  dataset = arrays.images_of(run, options)
  pictures = arrays.read(arrays.first(dataset, options.num), seed=0)
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  compared = restoration.compare(run.module.restorer(run.config), state, pictures, jax.random.key(options.seed))
  report = {
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
  arrays.write_picture(out, restoration.sheet(compared.pictures))
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def _text(report: dict) -> str:
  shown = lambda score: f"{score['mean']:.3f}" + ("" if score["stderr"] is None else f" +- {score['stderr']:.3f}")
  rows = [[method, shown(scores["psnr"]), shown(scores["ssim"])] for method, scores in report["methods"].items()]
  grid = tables.grid(["", "PSNR, dB", "SSIM"], rows, texts=1)
  return "\n".join([grid, "", f"picture: {report['file']}", f"protocol: {tables.protocol(report['protocol'])}"])
