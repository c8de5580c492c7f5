"""A directed acyclic graph and a table per node: the joint, draws from it, and exact answers to questions about it.

    p(x_1, ..., x_n) = prod_i p(x_i | parents of x_i)

The graph says who is independent of whom given what (d-separation; Pearl 1988, section 3.3), before any number is known.  The
tables then answer any question of the form p(targets | evidence), by summing the rest out factor by factor; the order of the
sums decides the cost and is chosen by the einsum library.  This is for networks whose factors stay small: the nodes have names
and a few levels each.  Networks over pixels, learnt from images, are in counting.py.

Koller & Friedman, Probabilistic Graphical Models (2009), chapters 3 and 9; `student` is their running example (figure 3.4).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random


class Network(NamedTuple):
  """Nodes by name, parents before children.

  Attributes:
    parents: the names of each node's parents.
    tables: `p(node | parents)` of each node, [levels of each parent in turn..., levels of the node].
  """

  parents: dict[str, tuple[str, ...]]
  tables: dict[str, Any]


def network(nodes: Mapping[str, tuple[Sequence[str], Any]]) -> Network:
  """A network from `{name: (parents, table)}` in any order.

  Raises:
    ValueError: an unknown parent, a cycle, a table of another shape than its parents' levels, or one that does not sum to one.
  """
  parents = {name: tuple(known) for name, (known, _) in nodes.items()}
  tables = {name: np.asarray(table, np.float64) for name, (_, table) in nodes.items()}
  for name, known in parents.items():
    for parent in known:
      if parent not in parents:
        raise ValueError(f"{name} has an unknown parent {parent!r}; there are: {', '.join(parents)}")
    expected = tuple(tables[parent].shape[-1] for parent in known)
    if tables[name].shape[:-1] != expected:
      raise ValueError(f"the table of {name} is {tables[name].shape}; its parents' levels are {expected}")
    if (tables[name] < 0).any() or not np.allclose(tables[name].sum(-1), 1, atol=1e-6):
      raise ValueError(f"the table of {name} is not of probabilities that sum to one over its last axis")
  order = _topological(parents)
  return Network({name: parents[name] for name in order}, {name: jnp.asarray(tables[name], jnp.float32) for name in order})


def levels(net: Network) -> dict[str, int]:
  """How many levels each node has."""
  return {name: table.shape[-1] for name, table in net.tables.items()}


def num_parameters(net: Network) -> int:
  """Free numbers in the tables, where the full joint has `prod(levels) - 1`."""
  return sum(math.prod(table.shape[:-1]) * (table.shape[-1] - 1) for table in net.tables.values())


def log_joint(net: Network, x: Mapping[str, Any]):
  """log p(x) in nats: {name: int [B]} of every node -> [B]."""
  return sum(jnp.log(table)[*(x[parent] for parent in net.parents[name]), x[name]] for name, table in net.tables.items())


def sample(key, net: Network, num: int) -> dict[str, jax.Array]:
  """Ancestral sampling, parents first: {name: int32 [num]}."""
  x = {}
  for node_key, (name, table) in zip(jax.random.split(key, len(net.tables)), net.tables.items()):
    probs = jnp.broadcast_to(table[*(x[parent] for parent in net.parents[name])], (num, table.shape[-1]))
    x[name] = random.categorical(node_key, jnp.log(probs))
  return x


def query(net: Network, targets: Sequence[str], evidence: Mapping[str, int] | None = None):
  """p(targets | evidence), exactly: [levels of each target in turn], sums to one.

  Raises:
    ValueError: an unknown node or level, a target that is evidence, or evidence that cannot happen.
  """
  joint = _sum_out(net, targets, evidence or {})
  total = joint.sum()
  if not isinstance(total, jax.core.Tracer) and not total > 0:
    raise ValueError(f"the evidence {dict(evidence or {})} has probability zero")
  return joint / total


def probability(net: Network, evidence: Mapping[str, int]):
  """p(evidence), a scalar."""
  return _sum_out(net, (), evidence)


def separated(net: Network, one: str, other: str, given: Sequence[str] = ()) -> bool:
  """Whether the graph alone makes two nodes independent given others (d-separation).

  In the graph of the ancestors of all of them, marry the parents of each node, forget directions, take the given ones away:
  separated is what then has no path (Lauritzen et al. 1990).
  """
  _check(net, (one, other, *given))
  ancestors, waiting = set(), [one, other, *given]
  while waiting:
    name = waiting.pop()
    if name not in ancestors:
      ancestors.add(name)
      waiting += net.parents[name]
  linked = {name: set() for name in ancestors}
  for name in ancestors:
    family = (name, *net.parents[name])
    for member in family:
      linked[member] |= {*family} - {member}
  reached, waiting = {*given}, [one]
  while waiting:
    name = waiting.pop()
    if name not in reached:
      reached.add(name)
      waiting += linked[name]
  return other not in reached


def student() -> Network:
  """A student's grade depends on the course's difficulty and the student's intelligence, the letter on the grade alone.

  d: easy, hard.  i: normal, high.  g: A, B, C.  s (the SAT score): low, high.  l (the letter): weak, strong.
  """
  return network(
    {
      "d": ((), [0.6, 0.4]),
      "i": ((), [0.7, 0.3]),
      "g": (("i", "d"), [[[0.3, 0.4, 0.3], [0.05, 0.25, 0.7]], [[0.9, 0.08, 0.02], [0.5, 0.3, 0.2]]]),
      "s": (("i",), [[0.95, 0.05], [0.2, 0.8]]),
      "l": (("g",), [[0.1, 0.9], [0.4, 0.6], [0.99, 0.01]]),
    }
  )


def _sum_out(net: Network, targets, evidence):
  """p(targets, evidence): the product of all tables, evidence put in, summed over everything else."""
  _check(net, (*targets, *evidence))
  if {*targets} & {*evidence} or len({*targets}) < len(targets):
    raise ValueError(f"targets {tuple(targets)} with evidence {tuple(evidence)}; each node is asked for once, or given")
  for name, level in evidence.items():
    if isinstance(level, int) and not 0 <= level < levels(net)[name]:
      raise ValueError(f"{name} is {level}; take a level from 0 to {levels(net)[name] - 1}")
  number = {name: index for index, name in enumerate(net.tables)}
  operands = []
  for name, table in net.tables.items():
    family = (*net.parents[name], name)
    operands += [table[*(evidence.get(member, slice(None)) for member in family)]]
    operands += [[number[member] for member in family if member not in evidence]]
  return jnp.einsum(*operands, [number[name] for name in targets], optimize="greedy", precision="highest")


def _check(net, names):
  for name in names:
    if name not in net.tables:
      raise ValueError(f"unknown node {name!r}; there are: {', '.join(net.tables)}")


def _topological(parents) -> list[str]:
  order, waiting = [], dict(parents)
  while waiting:
    ready = [name for name, known in waiting.items() if not {*known} & {*waiting}]
    if not ready:
      raise ValueError(f"a cycle among {', '.join(waiting)}")
    order += ready
    for name in ready:
      del waiting[name]
  return order
