"""What do classifiers say to noise?  A discriminative one beside Bayes' rule, from a digit to nothing, and under attack.

  python -m experiments.noisy_digits [--seeds 3] [--out noisy_digits.png]

2.2 minutes on 2 CPU cores, shared with other work; prints one JSON object.  pictures/noisy_digits.png is what it draws.  The
discriminative one is a small convolutional network, the generative one a Gaussian per class (`bayes_digits`), and both are
tested on the 299 test images.  Measured, from the lowest to the highest of three seeds:

                                               discriminative    generative
  clean: accuracy                              0.967 to 0.980    0.993
  clean: mean confidence                       0.987 to 0.992    0.999
  nothing but noise: accuracy                  0.08 to 0.12      0.10 to 0.11
  nothing but noise: mean confidence           0.76 to 0.80      0.990 to 0.995
  noise told from digits by its doubt, AUROC   0.95 to 0.97      1.000
  a fifth of noise told, AUROC                 0.66 to 0.70      0.89
  attack on it, 32 levels of 255: accuracy     0.47 to 0.50      0.87 to 0.88
  attack on it, 32 levels: told, AUROC         0.88 to 0.90      0.75 to 0.76

So knowing p(x | y) does not make p(y | x) modest.  On pure noise Bayes' rule is surer of its answer than the network is: the
Gaussians' log densities differ by hundreds of nats out there, and only differences count.  It also loses its accuracy sooner as
noise grows.  What it has and the network lacks is p(x): it knows that this is no digit at all, from four tenths of noise on
without a mistake to speak of.  An attack that knows the Gaussians and keeps to 16 levels goes unnoticed by p(x), though.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import bayes_digits, bayes_table, plots
from gm_jax import data, images
from gm_jax.cli.options import check_range
from gm_jax.errors import UserError
from gm_jax.metrics.classifier import Classifier
from gm_jax.tasks import classification, outliers

STRENGTHS = np.linspace(0, 1, 11)  # of uniform noise u: (1 - t) x + t u
STEPS = np.array([0, 4, 8, 16, 24, 32, 48, 64])  # of the attack, grey levels of 255
NAMES = {"discriminative": "tab:red", "generative": "tab:blue"}
MEASURES = ("accuracy", "mean confidence", "told from clean ones, AUROC")


class Classifiers(NamedTuple):
  """Functions of grey levels, float [N, 8, 8, 1] in 0 to 255."""

  log_posterior: dict[str, Callable]  # log p(y | x) [N, K], by name
  nll: Callable  # -log p(x) [N], of the generative one


def trained(seed: int) -> Classifiers:
  log_probs = bayes_table.generative("gaussian", seed)
  bayes = lambda levels: classification.log_posterior(bayes_table.LOG_PRIOR, log_probs(levels))
  network = bayes_table.discriminative(Classifier(bayes_digits.CLASSES, (16, 32), 64), seed)
  nll = lambda levels: -classification.log_marginal(bayes_table.LOG_PRIOR, log_probs(levels))
  return Classifiers({"discriminative": jax.jit(network), "generative": jax.jit(bayes)}, jax.jit(nll))


def attacked(log_posterior: Callable, clean, labels, size: float):
  """Each pixel moved `size` levels the way that makes the label less probable (Goodfellow et al. 2015, fast gradient sign)."""
  loss = lambda levels: -log_posterior(levels)[jnp.arange(len(labels)), labels].sum()
  return np.clip(np.round(clean + size * np.sign(jax.grad(loss)(clean))), 0, 255).astype(np.float32)


def noisy(clean, strength: float, seed: int):
  """On the way to uniform noise; whole levels, as of an image."""
  noise = outliers.make("noise", clean.astype(np.uint8), seed)
  return np.round((1 - strength) * clean + strength * noise).astype(np.float32)


def measured(classifiers: Classifiers, clean, changed, labels) -> dict:
  """Of each classifier: accuracy, mean confidence, and how surely its doubt tells these images from the clean ones.

  The discriminative one's doubt is -max log p(y | x), the best it has; the generative one's is -log p(x).
  """
  found = {}
  for name, log_posterior in classifiers.log_posterior.items():
    doubt = lambda x: -np.asarray(log_posterior(x)).max(1)  # noqa: B023
    doubt = classifiers.nll if name == "generative" else doubt
    answers = np.asarray(log_posterior(changed))
    area = outliers.auroc(doubt(clean), doubt(changed))
    found[name] = [(answers.argmax(1) == labels).mean(), np.exp(answers.max(1)).mean(), area]
  return {name: [float(value) for value in values] for name, values in found.items()}


def variants(classifiers: Classifiers, clean, labels, seed: int) -> dict[str, list]:
  """Three series of what becomes of the images: growing noise, and growing attacks on either classifier."""
  series = {"uniform noise": [noisy(clean, strength, seed) for strength in STRENGTHS]}
  for name, victim in classifiers.log_posterior.items():
    series[f"attack on the {name} one"] = [attacked(victim, clean, labels, size) for size in STEPS]
  return series


def experiment(seed: int) -> tuple[dict[str, list[dict]], dict[str, list]]:
  """What is measured on each series, `{series: [{name: measures}]}`, and the series."""
  test = data.digits("test").arrays
  clean, labels = test["image"].astype(np.float32), test["label"]
  classifiers = trained(seed)
  series = variants(classifiers, clean, labels, seed)
  return {name: [measured(classifiers, clean, images, labels) for images in steps] for name, steps in series.items()}, series


def figure(runs: list[dict], examples: dict[str, list]):
  """A row per series: examples, and a panel per measure, whose bands are from the lowest to the highest seed."""
  made, axes = plots.figure(1 + len(MEASURES), len(examples), size=2.3)
  for row, (series, steps) in enumerate(examples.items()):
    x = STRENGTHS if row == 0 else STEPS
    shown = range(0, len(steps), 2)
    grid = images.grid(np.concatenate([steps[step][:4] for step in shown]).astype(np.uint8), columns=4)
    axes[row, 0].imshow(grid, cmap="gray", vmin=0, vmax=255)
    axes[row, 0].set_xticks([])
    axes[row, 0].set_yticks([9 * line + 4 for line in range(len(shown))], [f"{x[step]:g}" for step in shown], fontsize=7)
    axes[row, 0].set_title(series, fontsize=8)
    for name, colour in NAMES.items():
      values = np.array([[point[name] for point in run[series]] for run in runs])  # [seeds, points, measures]
      for column, panel in enumerate(axes[row, 1:]):
        panel.plot(x, values[..., column].mean(0), color=colour, label=name)
        panel.fill_between(x, values[..., column].min(0), values[..., column].max(0), color=colour, alpha=0.2, lw=0)
    for panel, title in zip(axes[row, 1:], MEASURES):
      panel.set_ylim(-0.03, 1.03)
      panel.set_xlabel("share of noise" if row == 0 else "levels of 255 that each pixel is moved", fontsize=7)
      panel.tick_params(labelsize=7)
      panel.set_title(title, fontsize=8)
  axes[0, 1].legend(fontsize=7)
  return made


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(prog="python -m experiments.noisy_digits", description=__doc__.splitlines()[0])
  parser.add_argument("--seeds", type=int, default=3, help="how many times everything is trained and drawn")
  parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("noisy_digits.png"))
  options = parser.parse_args(arguments)
  try:
    check_range("--seeds", options.seeds, 1, 100)
    if options.out.suffix != ".png" or not options.out.parent.is_dir():
      raise UserError(f"--out {str(options.out)!r}: take a name that ends in .png, in a directory that is there")
    plots.figure()  # complains if matplotlib is missing, before the training and not after
  except UserError as error:
    print(f"{parser.prog}: {error}", file=sys.stderr)
    return 2
  runs, examples = zip(*map(experiment, range(options.seeds)))
  figure(runs, examples[0]).savefig(options.out)
  print(json.dumps({"measures": MEASURES, "noise": STRENGTHS.tolist(), "steps": STEPS.tolist(), "seeds": runs}))
  return 0


if __name__ == "__main__":
  sys.exit(main())
