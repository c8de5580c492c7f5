"""`gm-jax probe RUN`: how much of the labels a linear classifier reads off a run's features, and off the pixels."""

import dataclasses
import json

from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError


def probe(options, rest) -> int:
  """Prints the accuracy on the test split after each of several numbers of labels; writes nothing."""
  del rest
  for number in options.labels:
    check_range("--labels", number, 1, 2**20)
  run = opened.open_run(options.run)
  if not hasattr(run.module, "features"):
    raise UserError(f"{run.path} has no features: {run.name} does not encode images; autoencoder_mnist does, for one")

  import jax
  import numpy as np

  from gm_jax import evaluation, parallel
  from gm_jax.metrics import probe as probes

  splits = run.module.data(run.config)
  if any("label" not in splits[split].gather(np.arange(1)) for split in ("train", "test")):
    raise UserError(f"{run.path}: the data of {run.name} have no labels to read")
  train, test = (arrays.first(splits[split], num) for split, num in (("train", max(options.labels)), ("test", 2**30)))
  labels = {"train": train.arrays["label"], "test": test.arrays["label"]}
  pixels = {"train": arrays.read(train, seed=0), "test": arrays.read(test, seed=0)}
  step, state = opened.restore(run, run.module.model(run.config), parallel.single())
  encode = jax.jit(run.module.features(run.config))
  kinds = {
    "features": {split: _encoded(encode, state, images) for split, images in pixels.items()},
    "pixels": {split: images.reshape(len(images), -1) / np.float32(255) for split, images in pixels.items()},
  }
  num_classes, rows = int(max(array.max() for array in labels.values())) + 1, []
  for number in options.labels:
    row = {"labels": min(number, len(train))}
    for name, values in kinds.items():
      fitted = probes.fit(values["train"][:number], labels["train"][:number], num_classes, penalty=options.penalty)
      right = probes.predict(fitted, values["test"]) == labels["test"]
      row[name] = evaluation.summary("accuracy", right.astype(np.float64))
    rows.append(row)
  report = {
    "dimensions": {name: values["test"].shape[1] for name, values in kinds.items()},
    "rows": rows,
    "protocol": {
      **test.protocol,
      "experiment": run.name,
      "step": step,
      "penalty": options.penalty,
      "config": dataclasses.asdict(run.config),
    },
  }
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def _encoded(encode, state, images, batch_size: int = 500):
  """Features of all images, [N, D]."""
  import numpy as np

  pieces = [np.asarray(encode(state, images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
  return np.concatenate(pieces)


def _text(report: dict) -> str:
  shown = lambda score: f"{score['mean']:.4f} +- {score['stderr']:.4f}"
  names = [*report["dimensions"]]
  rows = [[row["labels"], *(shown(row[name]) for name in names)] for row in report["rows"]]
  head = ["labels", *(f"{size} {name}" for name, size in report["dimensions"].items())]
  grid = tables.grid(head, rows, texts=0)
  return f"accuracy of a linear classifier on the test split\n\n{grid}\n\nprotocol: {tables.protocol(report['protocol'])}"
