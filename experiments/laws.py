"""Data whose law is known: every point carries its exact log density, so that the gap to the truth is measured.

The gap of a point is log p_true(x) - log p_model(x) in nats; its mean over a split estimates KL(true || model).
"""

import dataclasses

import jax
import numpy as np

from gm_jax import data


def splits(law: data.Toy, num_points: int, names=("train", "test")) -> dict[str, data.Dataset]:
  """Independent splits of `num_points` each, with the log density of every point, which only `gap` reads."""
  return {split: _with_truth(law, law.dataset(num_points, seed=0, split=split)) for split in names}


def gap(evaluate):
  """A model's `evaluate` -> the measure of an experiment: "nll" and "gap", each [B], in nats."""

  def measured(key, state, batch):
    nll = evaluate(key, state, batch)["nll"]
    return {"nll": nll, "gap": batch["true_log_prob"] + nll}

  return measured


def log_density(model, state):
  """log p(x) of a trained model of points: float32 [N, 1, 1, D] -> nats [N]."""
  nll = jax.jit(lambda points: model.evaluate(jax.random.key(0), state, {"image": points})["nll"])
  return lambda points: -np.concatenate([nll(piece) for piece in np.array_split(points, max(1, len(points) // 4096))])


def density_picture(model, state, reach: float) -> np.ndarray:
  """The density of a trained model of points on the plane, over the square [-reach, reach]: uint8 [H, W, 3]."""
  from experiments import plots

  figure, axes = plots.figure()
  plots.density(axes[0, 0], log_density(model, state), reach)
  return plots.to_array(figure)


def _with_truth(law, dataset):
  truth = law.log_prob(dataset.arrays["image"]).astype(np.float32)
  return dataclasses.replace(dataset, arrays={**dataset.arrays, "true_log_prob": truth})
