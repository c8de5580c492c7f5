"""`gm-jax classify RUN`: Bayes' rule with the densities of a conditional run, graded on a whole split."""

import dataclasses
import json

from gm_jax.cli import opened, tables
from gm_jax.cli.options import alternatives, check_range
from gm_jax.errors import UserError


def classify(options, rest) -> int:
  """Prints accuracy, log-loss, calibration and who is taken for whom; writes nothing."""
  del rest
  check_range("--seed", options.seed, 0, 2**32 - 1)
  run = opened.open_run(options.run)
  if not run.num_labels:
    raise UserError(f"{run.path} cannot classify: the data of {run.name} have no labels")

  import numpy as np

  from gm_jax import evaluation, parallel
  from gm_jax.tasks import classification

  splits = run.module.data(run.config)
  if options.split not in splits:
    raise UserError(f"unknown split {options.split!r} of {run.name}; {alternatives(options.split, splits)}")
  labels = _labels(run, splits[options.split])
  prior = np.ones(run.num_labels)
  if options.prior == "counts":
    prior = np.bincount(_labels(run, splits["train"]), minlength=run.num_labels)
  model = run.module.model(run.config)
  strategy = parallel.BY_NAME[run.config.strategy]()
  step, state = opened.restore(run, model, strategy)
  likelihood = classification.likelihood_of(opened.reports(run, model, state))
  if not opened.scores_labels(run, model, state, likelihood):
    raise UserError(f"{run.path} cannot classify: {run.name} is not a conditional model, its {likelihood} knows no labels")

  def measure(key, state, batch):
    return {"log_prob": classification.class_log_probs(model.evaluate, key, state, batch, run.num_labels)}

  how = dict(batch_size=run.config.batch_size, seed=options.seed, strategy=strategy)
  log_probs = evaluation.per_example(measure, state, splits[options.split], **how)["log_prob"]  # [N, K]
  with np.errstate(divide="ignore"):  # a class that was never seen is never the answer
    log_prior = np.log(prior / prior.sum())
  graded = classification.grade(classification.log_posterior(log_prior, log_probs), labels)
  report = {
    "metrics": {
      "accuracy": evaluation.summary("accuracy", graded["correct"]),
      "log_loss": evaluation.summary("log_loss", graded["log_loss"]) | {"unit": "nats"},
      "calibration_error": {"mean": graded["calibration_error"], "stderr": None, "unit": "1", "count": len(labels)},
    },
    "confusion": graded["confusion"].tolist(),
    "protocol": {
      **splits[options.split].protocol,
      "experiment": run.name,
      "step": step,
      "likelihood": likelihood,
      "prior": options.prior,
      "seed": options.seed,
      "config": dataclasses.asdict(run.config),
    },
  }
  print(json.dumps(report, allow_nan=False) if options.json else _text(report))
  return 0


def _labels(run: opened.Run, dataset):
  """The labels of a split, int [N]."""
  labels = getattr(dataset, "arrays", {}).get("label")
  name = f"{dataset.protocol['data']}/{dataset.protocol['split']}"
  if labels is None:
    raise UserError(f"{run.path} cannot classify {name}, which has no labels")
  if labels.min() < 0 or labels.max() >= run.num_labels:
    raise UserError(f"{run.path} knows classes 0 to {run.num_labels - 1}; {name} has labels {labels.min()} to {labels.max()}")
  return labels


def _text(report: dict) -> str:
  classes = range(len(report["confusion"]))
  rows = [[label, *(count or "." for count in row)] for label, row in zip(classes, report["confusion"])]
  confusion = tables.grid(["is \\ taken for", *classes], rows, texts=1)
  return f"{tables.metrics(report)}\n\n{confusion}"
