"""`gm-jax compress RUN --out F` and `gm-jax decompress RUN F --out G`: images without loss, as short as a run's likelihood."""

import contextlib
import dataclasses
import json
import pathlib
import time

from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError


def compress(options, rest) -> int:
  """Writes the file; prints its size against what the likelihood promises and against PNG and WebP."""
  del rest
  check_range("--batch-size", options.batch_size, 1, 2**20)
  check_range("--num", 1 if options.num is None else options.num, 1, 2**31 - 1)
  arrays.check_place(options.out)
  run = _open(options.run)

  import numpy as np

  from gm_jax import evaluation, parallel, runs
  from gm_jax.tasks import compress as coding

  dataset = arrays.images_of(run, options)
  dataset = arrays.first(dataset, len(dataset) if options.num is None else options.num)
  images = arrays.read(dataset, seed=0)
  model, strategy = run.module.model(run.config), parallel.single()
  step, state = opened.restore(run, model, strategy)
  sequential = run.module.conditionals(run.config)

  start = time.perf_counter()
  content = coding.encode(sequential, state, images, model=_fingerprint(run, state), batch_size=options.batch_size)
  seconds = time.perf_counter() - start
  how = dict(batch_size=min(options.batch_size, len(images)), seed=0, strategy=strategy)
  nats = evaluation.per_example(model.evaluate, state, dataset, **how)["nll"]
  bits = {"file": 8 * len(content), "likelihood": float(nats.sum() / np.log(2))}
  bits |= {name: 8 * size for name, size in coding.rivals(images).items()}
  report = {
    "file": str(options.out),
    "bytes": len(content),
    "count": len(images),
    "bits_per_image": {name: total / len(images) for name, total in bits.items()},
    "bits_per_dim": {name: total / images.size for name, total in bits.items()},
    "overhead": bits["file"] / bits["likelihood"] - 1,
    "seconds": seconds,
    "protocol": {**dataset.protocol, "experiment": run.name, "step": step, "config": dataclasses.asdict(run.config)},
  }
  runs.write_atomically(options.out, content)
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def decompress(options, rest) -> int:
  """Writes the images, if every one of them is what was compressed."""
  del rest
  arrays.check_picture(options.out)
  arrays.check_place(options.out)
  run = _open(options.run)
  try:
    content = options.file.read_bytes()
  except OSError as error:
    raise UserError(f"{options.file} cannot be read: {error.strerror}") from error

  from gm_jax import parallel
  from gm_jax.tasks import compress as coding

  with _naming(options.file):
    coding.read_header(content)  # before the model is opened, which takes its time
  _, state = opened.restore(run, run.module.model(run.config), parallel.single())
  sequential = run.module.conditionals(run.config)
  start = time.perf_counter()
  with _naming(options.file):
    images = coding.decode(sequential, state, content, model=_fingerprint(run, state))
  report = {"file": str(options.out), "count": len(images), "shape": images.shape, "seconds": time.perf_counter() - start}
  arrays.write(options.out, images)
  line = "{count} images, {seconds:.1f} s, checked against the SHA-256 in the file: {file}"
  print(json.dumps(report) if options.json else line.format(**report))
  return 0


@contextlib.contextmanager
def _naming(file: pathlib.Path):
  """Whatever is wrong is wrong with this file."""
  try:
    yield
  except UserError as error:
    raise UserError(f"{file}: {error}") from error


def _open(path: pathlib.Path) -> opened.Run:
  """A run that has conditionals."""
  run = opened.open_run(path)
  if not hasattr(run.module, "conditionals"):
    can = "networks learnt by counting, Chow-Liu trees, mixtures of Bernoullis and autoregressive models"
    raise UserError(f"{path} cannot compress: {run.name} gives no p(x_d | x_<d), which {can} do")
  return run


def _fingerprint(run: opened.Run, state) -> bytes:
  """Of experiment, configuration and state; where the data lie and what is logged is no part of a model."""
  from experiments import base
  from gm_jax.tasks import compress as coding

  config = {name: value for name, value in dataclasses.asdict(run.config).items() if name not in base.FREE}
  return coding.fingerprint(json.dumps([run.name, config], sort_keys=True), state)


def _text(report: dict) -> str:
  head = f"{report['count']} images in {report['bytes']:,} bytes, {report['seconds']:.1f} s: {report['file']}"
  rows = [[name, f"{bits:.2f}", f"{report['bits_per_dim'][name]:.4f}"] for name, bits in report["bits_per_image"].items()]
  grid = tables.grid(["", "bits per image", "bits per dim"], rows, texts=1)
  over = f"the file is {100 * report['overhead']:.2f}% longer than the likelihood promises"
  return "\n".join([head, "", grid, "", over, f"protocol: {tables.protocol(report['protocol'])}"])
