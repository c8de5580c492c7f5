"""Classification by Bayes' rule: whoever knows how each class looks can say which class this is.

    p(y | x) = p(y) p(x | y) / sum_k p(k) p(x | k)

Any explicit family serves.  A conditional model's `evaluate` scores an image under its label's density, so log p(x | k) for
all k is `evaluate` with every label replaced by k: `class_log_probs`.  And `class_conditional` makes such a model of K copies
of any unconditional one.  With full Gaussians that is quadratic discriminant analysis, with independent pixels naive Bayes.

Every class scores the same image: what `evaluate` draws (dequantisation, latents) comes from the same key for all k.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.core import GenerativeModel, global_mean
from gm_jax.errors import UserError

LIKELIHOODS = ("nll", "nll_bound")  # what makes a model explicit, the best first


def class_log_probs(measure: Callable, key, state, batch, num_classes: int):
  """log p(x | y = k) of every image and class, in nats, [B, K]; lower bounds of them where the model has bounds.

  Args:
    measure: `evaluate` of a conditional model, `(key, state, batch) -> {name: [B]}`.
    key: one for all classes.
    state: the model's state.
    batch: {"image": [B, H, W, C], ...}; its labels are not read.
    num_classes: K.
  """

  def one(label):
    scores = measure(key, state, {**batch, "label": jnp.full(len(batch["image"]), label, jnp.int32)})
    return -scores[likelihood_of(scores)]

  return jax.lax.map(one, jnp.arange(num_classes)).T


def posterior(log_prior, log_probs):
  """p(y | x) by Bayes' rule: log_prior [K], log_probs [B, K] -> [B, K], rows sum to one."""
  return jnp.exp(log_posterior(log_prior, log_probs))


def log_posterior(log_prior, log_probs):
  """log p(y | x), finite where the posterior itself is zero to float accuracy: [K], [B, K] -> [B, K]."""
  return jax.nn.log_softmax(log_prior[None] + log_probs, axis=1)


def log_marginal(log_prior, log_probs):
  """log p(x), the classes summed: [K], [B, K] -> [B], nats."""
  return jax.nn.logsumexp(log_prior[None] + log_probs, axis=1)


def marginal(measure: Callable, log_prior) -> Callable:
  """The measure of images without labels: "nll" (or "nll_bound") of p(x) = sum_k p(k) p(x | k), log_prior [K]."""

  def measured(key, state, batch):
    some = {**batch, "label": jax.ShapeDtypeStruct(batch["image"].shape[:1], jnp.int32)}
    name = likelihood_of(jax.eval_shape(measure, key, state, some))
    log_probs = class_log_probs(measure, key, state, batch, len(log_prior))
    return {name: -log_marginal(jnp.asarray(log_prior), log_probs)}

  return measured


def likelihood_of(scores) -> str:
  """The name of the likelihood among what `evaluate` reports."""
  for name in LIKELIHOODS:
    if name in scores:
      return name
  raise UserError(f"a likelihood is needed, {' or '.join(LIKELIHOODS)}; this model reports {', '.join(scores)}")


# One density per class, of any family.


class State(NamedTuple):
  classes: Any  # the state of the model of each class, stacked: every leaf [K, ...]


def class_conditional(model: GenerativeModel, num_classes: int) -> GenerativeModel:
  """K copies of an unconditional model, each of which sees one class only.

  `init` and `step` take stratified batches (`data.stratified`): row i is of class i mod K, and every cut of the batch holds as
  many rows of each; metrics are means over the classes, and NaN if the labels are in any other order, which stops a run.
  `evaluate` scores each row under its own label's density, and NaN if there is no such class; `sample` takes labels int32 [num]
  as its condition, and without them draws a label for each image, all classes equally likely.  A class that no row asks for
  costs nothing.  How frequent the classes are is not the model's: stratified batches do not tell.

  Args:
    model: of any family.
    num_classes: K.
  """

  def init(key, batch):
    one = lambda now: model.init(*now)
    return State(jax.lax.map(one, (jax.random.split(key, num_classes), _by_class(batch, num_classes))))

  def step(key, state, batch):
    one = lambda now: model.step(*now)
    # Class after class, not all at once: batched LAPACK can wait for ever, see `tractable.mixture`.
    now = jax.random.split(key, num_classes), state.classes, _by_class(batch, num_classes)
    classes, metrics = jax.lax.map(one, now)
    expected = jnp.arange(len(batch["label"])) % num_classes
    in_turn = global_mean((batch["label"] == expected).astype(jnp.float32).mean()) == 1
    return State(classes), {name: jnp.where(in_turn, values.mean(), jnp.nan) for name, values in metrics.items()}

  def sample(key, state, num, condition=None):
    label_key, image_key = jax.random.split(key)
    if condition is None:
      condition = random.randint(label_key, num, (), 0, num_classes)
    draw = lambda one: model.sample(image_key, one, num)
    return _each_under_its_own(draw, state.classes, jnp.asarray(condition))

  def evaluate(key, state, batch):
    rest = {name: array for name, array in batch.items() if name != "label"}
    measure = lambda one: model.evaluate(key, one, rest)
    return _each_under_its_own(measure, state.classes, batch["label"])

  return GenerativeModel(init, step, sample, evaluate)


def _by_class(batch, num_classes: int):
  """A stratified batch {name: [B, ...]} -> {name: [K, B / K, ...]}."""
  if "label" not in batch:
    raise UserError(f"class-conditional models need labels; the batch has {', '.join(batch)}")
  num = len(batch["label"])
  if num % num_classes:
    raise UserError(f"{num} rows are not a multiple of {num_classes} classes; every device needs as many of each")
  return {name: jnp.swapaxes(jnp.reshape(a, (-1, num_classes, *a.shape[1:])), 0, 1) for name, a in batch.items()}


def _each_under_its_own(function: Callable, classes, labels):
  """Row i of `function(state of class labels[i])`, a tree of [B, ...]; classes that no label names are not computed."""
  like = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], classes))
  shaped = lambda mask, leaf: mask.reshape(-1, *[1] * (leaf.ndim - 1))

  def add(so_far, now):
    label, state = now
    mine = labels == label
    put = lambda: jax.tree.map(lambda new, old: jnp.where(shaped(mine, old), new, old), function(state), so_far)
    return jax.lax.cond(mine.any(), put, lambda: so_far), None

  nowhere = lambda leaf: jnp.full(leaf.shape, jnp.nan if jnp.issubdtype(leaf.dtype, jnp.inexact) else 0, leaf.dtype)
  num_classes = len(jax.tree.leaves(classes)[0])
  return jax.lax.scan(add, jax.tree.map(nowhere, like), (jnp.arange(num_classes), classes))[0]


# How good a classifier is, Bayesian or not: host arithmetic in float64.


def grade(log_probs, labels, num_bins: int = 15) -> dict:
  """The report card of log p(y | x) [N, K] against labels [N].

  Returns:
    "correct" [N], 0 or 1; "log_loss" [N], -log p(label | x) in nats; "calibration_error", the expected distance between
    confidence and accuracy over `num_bins` equal bins of confidence (Naeini et al. 2015; Guo et al. 2017, equation 3);
    "confusion" int [K, K], rows the labels and columns the answers.
  """
  log_probs, labels = np.asarray(log_probs, np.float64), np.asarray(labels)
  answers, num_classes = log_probs.argmax(1), log_probs.shape[1]
  correct = (answers == labels).astype(np.float64)
  confidence = np.exp(log_probs.max(1))
  bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
  gaps = np.abs(np.bincount(bins, confidence - correct, num_bins))  # |sum over the bin of confidence - accuracy|
  confusion = np.bincount(labels * num_classes + answers, minlength=num_classes**2).reshape(num_classes, num_classes)
  return {
    "correct": correct,
    "log_loss": -log_probs[np.arange(len(labels)), labels],
    "calibration_error": float(gaps.sum() / len(labels)),
    "confusion": confusion,
  }
