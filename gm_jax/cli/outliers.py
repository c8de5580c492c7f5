"""`gm-jax outliers RUN...`: how well runs tell their own test images from other kinds of image, in one table.

The other kinds are made from the test images themselves (`tasks.outliers.KINDS`), or they are prepared TFDS sets, cut to the
run's size and channels.  What makes the run's own data black and white makes them so too.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from gm_jax.cli import arrays, opened, tables
from gm_jax.cli.options import check_range
from gm_jax.errors import NonFiniteError, UserError

GROUP = 10  # images that are judged together
SCORES = ("nll", "nll_bound", "reconstruction")  # what outliers can be told by, the best first


class Subject(NamedTuple):
  """A run that scores images."""

  run: opened.Run
  reports: str  # one of SCORES
  splits: dict[str, Any]
  score: Callable  # (data set, seed) -> float64 [N]


def outliers(options, rest) -> int:
  """Prints a row for each run and kind and a column for each score; writes nothing."""
  del rest
  check_range("--seed", options.seed, 0, 2**32 - 1)
  check_range("--num", options.num, 2 * GROUP, 10**6)
  subjects = [_subject(path) for path in options.run]
  background = _background(options.background, subjects) if options.background else None
  own = [arrays.first(subject.splits["test"], options.num) for subject in subjects]
  kinds = [_kinds(subject, inliers, options) for subject, inliers in zip(subjects, own)]  # all, before the first is scored
  tables_of = [_areas(*case, background, options) for case in zip(subjects, own, kinds)]
  report = {
    "outliers": [row for rows, _ in tables_of for row in rows],
    "protocol": [protocol for _, protocol in tables_of],
  }
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def _areas(subject: Subject, inliers, kinds: dict, background: Subject | None, options) -> tuple[list[dict], dict]:
  """The rows of one run, and what they were measured under."""
  from gm_jax.tasks import outliers as scoring

  train = arrays.first(subject.splits["train"], options.num)
  typical = float(subject.score(train, options.seed).mean())
  in_nats = subject.reports != "reconstruction"  # and nats can be subtracted from nats

  def scores(dataset):
    base = None
    if background:
      base = background.score(dataset, options.seed)
    elif in_nats:
      base = scoring.compressed_nats(arrays.read(dataset, options.seed))
    return scoring.scores(subject.score(dataset, options.seed), typical, base, GROUP)

  path, usual, rows = str(subject.run.path), scores(inliers), []
  for kind, dataset in kinds.items():
    row = {}
    for name, found in scores(dataset).items():
      area, counts = scoring.auroc(usual[name], found), (len(usual[name]), len(found))
      row[name] = {"auroc": area, "stderr": scoring.auroc_stderr(area, *counts), "counts": counts}
    rows.append({"run": path, "reports": subject.reports, "kind": kind, "scores": row})
  compared = str(background.run.path) if background else "deflate" if in_nats else None
  sizes = {"num": len(inliers), "num_train": len(train), "typical": round(typical, 3)}
  return rows, {"run": path, **inliers.protocol, **sizes, "background": compared, "seed": options.seed}


def _subject(path) -> Subject:
  """The run at `path` with whatever it can score images by."""
  run = opened.open_run(path)
  image = opened.batch_like(run).get("image")
  if image is None or image.dtype != "uint8":
    raise UserError(f"{path} does not model images of 8 bits; outliers are told among those")

  import numpy as np

  from gm_jax import evaluation, parallel
  from gm_jax.tasks import classification

  splits = run.module.data(run.config)
  model = run.module.model(run.config)
  strategy = parallel.BY_NAME[run.config.strategy]()
  _, state = opened.restore(run, model, strategy)
  found = opened.reports(run, model, state)
  reports = next((name for name in SCORES if name in found), None)
  if reports is None:
    raise UserError(f"{path} cannot tell outliers: {run.name} reports {', '.join(found)}; one of {', '.join(SCORES)} is needed")
  measure = model.evaluate
  if run.num_labels and opened.scores_labels(run, model, state, reports):
    measure = classification.marginal(measure, np.full(run.num_labels, -np.log(run.num_labels), np.float32))

  def score(dataset, seed):
    how = dict(batch_size=run.config.batch_size, seed=seed, strategy=strategy)
    scores = evaluation.per_example(measure, state, dataset, **how)[reports]
    if np.isnan(scores).any():
      raise NonFiniteError(f"{reports} of example {np.isnan(scores).argmax()} of {dataset.protocol['data']} is NaN in {path}")
    return scores

  return Subject(run, reports, splits, score)


def _background(path, subjects: list[Subject]) -> Subject:
  """A second model of the same data, whose likelihood is compared with the first's."""
  background = _subject(path)
  for one in (background, *subjects):
    if one.reports == "reconstruction":
      raise UserError(f"--background needs likelihoods, and {one.run.path} has none")
    mine, theirs = ([run.splits["test"].protocol[name] for name in ("data", "binarization")] for run in (background, one))
    if mine != theirs or background.run.shapes["image"][0][1:] != one.run.shapes["image"][0][1:]:
      raise UserError(f"--background {path} is of {', '.join(mine)}, and {one.run.path} of {', '.join(theirs)}; take the same")
  return background


def _kinds(subject: Subject, inliers, options) -> dict:
  """The other kinds of image as data sets like the run's own: {kind: Dataset}."""
  from gm_jax import data
  from gm_jax.tasks.outliers import KINDS, make

  black_and_white = bool(((inliers.arrays["image"] == 0) | (inliers.arrays["image"] == 255)).all())
  found = {}
  for kind in options.against or KINDS:
    if kind in KINDS:
      image = make(kind, inliers.arrays["image"], options.seed)
    else:
      image = _foreign(kind, subject, options)
    if black_and_white:
      image = data.static_binarization(data.from_arrays(image, data=kind)).arrays["image"]
    # Whatever else the measure may read keeps its shape; what it says is of other images.
    others = {name: array[: len(image)] for name, array in inliers.arrays.items() if name != "image"}
    short = min([len(image), *map(len, others.values())])
    arrays = {name: array[:short] for name, array in (others | {"image": image}).items()}
    found[kind] = dataclasses.replace(inliers, arrays=arrays, protocol={**inliers.protocol, "data": kind})
  return found


def _foreign(name: str, subject: Subject, options):
  """Test images of a TFDS set, in the run's shape: uint8 [N, H, W, C]."""
  from gm_jax import data
  from gm_jax.tasks.outliers import KINDS

  height, width, channels = subject.run.shapes["image"][0][1:]
  try:
    if height != width:
      raise UserError(f"its pictures are cut square, and those of {subject.run.path} are {height} x {width}")
    directory = options.data_dir or subject.run.config.data_dir
    dataset = data.tfds_images(name, "test", directory, size=height, channels=channels, budget=0)
  except UserError as error:
    raise UserError(f"--against {name!r} is none of {', '.join(KINDS)}; and as a TFDS set: {error}") from None
  return arrays.first(dataset, options.num).arrays["image"]


def _text(report: dict) -> str:
  names = [*dict.fromkeys(name for row in report["outliers"] for name in row["scores"])]
  shown = lambda score: f"{score['auroc']:.3f} +- {score['stderr']:.3f}" if score else "-"
  rows = [
    [row["run"], row["reports"], row["kind"], *(shown(row["scores"].get(name)) for name in names)] for row in report["outliers"]
  ]
  lines = [f"protocol: {tables.protocol(protocol)}" for protocol in report["protocol"]]
  head = "area under the ROC curve: P(an image of that kind scores higher than a test image)"
  return "\n".join([head, "", tables.grid(["run", "by", "against", *names], rows, texts=3), "", *lines])
