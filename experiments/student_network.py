"""The student network, learnt by counting from 10,000 students and then asked: exact answers beside those of the true tables.

Difficulty, intelligence, grade, SAT and letter are the five pixels of an image one pixel high.  `gm-jax evaluate` reports,
beside "nll", "gap": log p_true(x) - log p_model(x) in nats, whose mean is KL(true || model).  The picture shows what one comes
to think of the letter, of the mind and of the course as one hears more (Koller & Friedman 2009, section 3.2.1).

Family: tractable
Command: gm-jax train student_network
Hardware: 2 CPU cores, shared with other work
Minutes: 0.2
Expected: gap 0.0002 +- 0.0004 nats on 10,000 test students (theory: 15 parameters / (2 * 10,000 students) = 0.00075)
"""

import dataclasses

import jax
import numpy as np

from experiments import base, laws, plots
from gm_jax import data as data_sets
from gm_jax import images, random
from gm_jax.core import GenerativeModel
from gm_jax.tractable import bayesian_network, counting

TRUTH = bayesian_network.student()
NAMES = tuple(TRUTH.tables)
LEVELS = tuple(bayesian_network.levels(TRUTH).values())
PARENTS = [tuple(NAMES.index(parent) for parent in TRUTH.parents[name]) for name in NAMES]

# What is asked: target, its level, and the evidence, as it comes in.
QUESTIONS = (
  ("l", 1, {}),
  ("l", 1, {"i": 0}),
  ("l", 1, {"i": 0, "d": 0}),
  ("i", 1, {}),
  ("i", 1, {"g": 2}),
  ("i", 1, {"g": 2, "s": 1}),
  ("i", 1, {"g": 2, "s": 1, "d": 1}),
  ("d", 1, {}),
  ("d", 1, {"g": 2}),
  ("d", 1, {"g": 2, "s": 1}),
)


@dataclasses.dataclass(frozen=True)
class Config(base.Run):
  steps: int = 1  # counts them all
  batch_size: int = 10_000
  num_students: int = 10_000  # in each split
  num_samples: int = 16

  LEAST = base.Run.LEAST | {"num_students": 1}


def model(config: Config) -> GenerativeModel:
  del config
  return counting.counted(PARENTS, LEVELS)


def data(config: Config):
  return {split: students(config, seed) for seed, split in enumerate(("train", "test"))}


def students(config: Config, seed: int):
  """Draws from the true network as images uint8 [N, 1, 5, 1], with their true log probabilities."""
  x = bayesian_network.sample(random.stream(seed, random.SAMPLE), TRUTH, config.num_students)
  image = images.from_levels(np.stack([x[name] for name in NAMES], 1).reshape(-1, 1, len(NAMES), 1), max(LEVELS))
  dataset = data_sets.from_arrays(np.asarray(image), data="student network", split=("train", "test")[seed], points_seed=seed)
  truth = np.asarray(bayesian_network.log_joint(TRUTH, x), np.float32)
  return dataclasses.replace(dataset, arrays={**dataset.arrays, "true_log_prob": truth})


def measure(config: Config):
  return laws.gap(model(config).evaluate)


def learnt(state: counting.State) -> bayesian_network.Network:
  """The tables that were counted, as a network that answers questions."""
  tables = counting.fit(PARENTS, state, levels=LEVELS)
  nodes = {}
  for index, name in enumerate(NAMES):
    contexts = list(np.ndindex(*(LEVELS[parent] for parent in PARENTS[index])))
    codes = [sum(int(level * stride) for level, stride in zip(context, tables.strides[index])) for context in contexts]
    probs = np.exp(np.asarray(tables.log_probs[index], np.float64))[codes, : LEVELS[index]]
    nodes[name] = TRUTH.parents[name], probs.reshape(*(LEVELS[parent] for parent in PARENTS[index]), LEVELS[index])
  return bayesian_network.network(nodes)


def pictures(config: Config, state: counting.State) -> dict:
  del config
  figure, ((axes,),) = plots.figure(size=4.5)
  told = lambda evidence: ", ".join(f"{name}={level}" for name, level in evidence.items())
  names = [f"p({name}={level}{' | ' + told(evidence) if evidence else ''})" for name, level, evidence in QUESTIONS]
  for net, shift, label in ((TRUTH, -0.2, "true tables"), (learnt(jax.device_get(state)), 0.2, "counted")):
    answers = [float(bayesian_network.query(net, [name], evidence)[level]) for name, level, evidence in QUESTIONS]
    bars = axes.barh(np.arange(len(names)) + shift, answers, 0.4, label=label)
    axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
  axes.set_yticks(np.arange(len(names)), names, fontsize=8)
  axes.invert_yaxis()
  axes.set_xlim(0, 1)
  axes.legend(fontsize=8)
  return {"answers": plots.to_array(figure)}
