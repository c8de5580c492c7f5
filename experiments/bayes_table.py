"""Generative classifiers of the embedded digits beside discriminative ones, in one table.

    python -m experiments.bayes_table [--seed 0]

Two minutes on 2 CPU cores.  The generative ones are every `density` of `bayes_digits`; the discriminative ones are trained for
2,000 steps of 128 images.  A likelihood p(x) is what only the first have.
"""

import argparse
import sys
import typing
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
import optax

from experiments import bayes_digits
from gm_jax import data, evaluation, parallel, random
from gm_jax.cli import tables
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError
from gm_jax.metrics.classifier import Classifier, classifier
from gm_jax.tasks import classification
from gm_jax.train import train

LOG_PRIOR = np.full(bayes_digits.CLASSES, -np.log(bayes_digits.CLASSES), np.float32)
DENSITIES = typing.get_args(typing.get_type_hints(bayes_digits.Config)["density"])


class LogisticRegression(nn.Module):
  """Linear log-odds; in the place of a `Classifier`."""

  num_classes: int

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


DISCRIMINATIVE = {
  "logistic regression": lambda: LogisticRegression(bayes_digits.CLASSES),
  "convolutional network": lambda: Classifier(bayes_digits.CLASSES, (16, 32), 64),
}


def discriminative(module: nn.Module, seed: int, steps: int = 2000) -> Callable:
  """Trained on the training split: grey levels [N, 8, 8, 1], 0 to 255, -> log p(y | x) [N, K]."""
  optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
  batches = data.batches(data.digits("train"), 128, seed)
  state = train(classifier(module, optimizer, decay=0.99), batches, seed=seed, steps=steps, strategy=parallel.single())

  classify = nn.apply(lambda network, x: network(x, train=False), module)
  return lambda levels: jax.nn.log_softmax(classify(state.average.variables, levels / 127.5 - 1))


def generative(density: str, seed: int) -> Callable:
  """Fitted to the training split: uint8 [N, 8, 8, 1], floats of that range for Gaussians, -> log p(x | y) [N, K]."""
  config = bayes_digits.Config(density=density, seed=seed)
  model = bayes_digits.model(config)
  batches = data.batches(bayes_digits.data(config)["train"], config.batch_size, seed)
  state = train(model, batches, seed=seed, steps=config.steps, strategy=parallel.single())

  key = random.stream(seed, random.EVALUATE)
  return lambda levels: classification.class_log_probs(model.evaluate, key, state, {"image": levels}, bayes_digits.CLASSES)


def _grades(log_posterior, labels) -> list[str]:
  graded = classification.grade(log_posterior, labels)
  accuracy, loss = (evaluation.summary(name, graded[name]) for name in ("correct", "log_loss"))
  shown = lambda score: f"{score['mean']:.3f} +- {score['stderr']:.3f}"
  return [shown(accuracy), shown(loss), f"{graded['calibration_error']:.3f}"]


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(prog="python -m experiments.bayes_table", description=__doc__.splitlines()[0])
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args(arguments)
  try:
    check_range("--seed", options.seed, 0, 2**32 - 1)
  except UserError as error:
    print(f"{parser.prog}: {error}", file=sys.stderr)
    return 2
  test, rows = data.digits("test").arrays, []
  for density in DENSITIES:
    log_probs = jax.jit(generative(density, options.seed))(test["image"])
    nll = evaluation.summary("nll", -np.asarray(classification.log_marginal(LOG_PRIOR, log_probs), np.float64))
    log_posterior = classification.log_posterior(LOG_PRIOR, log_probs)
    rows.append([density, *_grades(log_posterior, test["label"]), f"{nll['mean']:.2f} +- {nll['stderr']:.2f}"])
  for name, make in DISCRIMINATIVE.items():
    log_posterior = jax.jit(discriminative(make(), options.seed))(test["image"].astype(np.float32))
    rows.append([name, *_grades(log_posterior, test["label"]), "-"])
  print(tables.grid(["", "accuracy", "log-loss", "calibration error", "-log p(x), nats"], rows, texts=1))
  return 0


if __name__ == "__main__":
  sys.exit(main())
