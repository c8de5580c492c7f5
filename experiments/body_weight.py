"""Body weights of women and men together, nobody having noted who is who: EM finds the two Gaussians.

The law is made up, in round numbers: half are women, 60 +- 7 kg, and half are men, 80 +- 9 kg.  The picture shows the data's
histogram, the two weighted components that EM found, their sum and the truth.  With 10,000 people theory allows standard errors
of 0.017 in the weights, 0.28 and 0.43 kg in the means, 0.15 and 0.23 kg in the deviations.  `gm-jax evaluate` reports, beside
"nll", "gap": log p_true(x) - log p_model(x) in nats, whose mean is KL(true || model).

Family: tractable
Command: gm-jax train body_weight
Hardware: 2 CPU cores, shared with other work
Minutes: 0.5
Expected: gap 0.0000 +- 0.0002 nats; 0.48 of them 59.7 +- 7.0 kg, 0.52 of them 79.5 +- 9.3 kg
"""

import dataclasses

import numpy as np

from experiments import base, laws
from gm_jax.core import GenerativeModel
from gm_jax.data import toys
from gm_jax.tractable import mixture

WEIGHTS, MEANS, DEVIATIONS = (0.5, 0.5), (60.0, 80.0), (7.0, 9.0)  # of the people, and in kg
LAW = toys.gaussian_mixture(
  [[mean] for mean in MEANS], [[[deviation**2]] for deviation in DEVIATIONS], WEIGHTS, name="body_weight"
)


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 300  # each is one step of EM, which is slow where components overlap
  batch_size: int = 10_000  # the training split
  num_points: int = 10_000  # people in each split
  share: float = 1e-6  # of the data set, that each component is given in made-up examples
  variance: float = 50.0  # of the made-up examples, in kg^2
  log_every: int = 10
  save_every: int = 100
  sample_every: int = 0
  num_samples: int = 1000

  LEAST = base.Run.LEAST | {"num_points": 1, "share": 1e-9, "variance": 1e-6}


def model(config: Config) -> GenerativeModel:
  return mixture.mixture(mixture.full_gaussian(config.variance), 2, config.share)


def data(config: Config):
  return laws.splits(LAW, config.num_points)


def measure(config: Config):
  return laws.gap(model(config).evaluate)


def recovered(config: Config, state: mixture.State):
  """Weights, means and standard deviations of the two components, each [2], the lighter component first."""
  log_weights, (mean, scale, _) = mixture.fit(mixture.full_gaussian(config.variance), state, config.share)
  columns = np.exp(log_weights), np.asarray(mean)[:, 0], np.asarray(scale)[:, 0, 0]
  order = np.argsort(columns[1])
  return tuple(column[order] for column in columns)


def pictures(config: Config, state: mixture.State) -> dict:
  from experiments import plots

  figure, axes = plots.figure(size=5)
  axis, people = axes[0, 0], data(config)["train"].arrays["image"].reshape(-1)
  kilograms = np.linspace(people.min(), people.max(), 400)
  axis.hist(people, bins=60, density=True, color="0.85", label=f"{len(people)} people")
  total = np.zeros(len(kilograms))
  for weight, mean, deviation in zip(*recovered(config, state)):
    component = toys.gaussian_mixture([[mean]], [[[deviation**2]]])
    part = weight * np.exp(component.log_prob(kilograms[:, None]))
    axis.plot(kilograms, part, "--", label=f"{weight:.2f} of them, {mean:.1f} +- {deviation:.1f} kg")
    total += part
  axis.plot(kilograms, total, label="the sum, by EM")
  axis.plot(kilograms, np.exp(LAW.log_prob(kilograms[:, None])), "k:", label="the truth")
  axis.set_xlabel("body weight, kg")
  axis.set_ylabel("density, 1/kg")
  axis.legend(fontsize=7)
  return {"density": plots.to_array(figure)}
