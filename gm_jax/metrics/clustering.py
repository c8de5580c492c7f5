"""Do clusters that were found without labels agree with the labels?

The purity of a clustering is the share of examples that would be labelled rightly if each cluster were given the label that
most of its examples have.  It is 1 where no cluster mixes labels, so it never falls as clusters are cut up: it compares
clusterings of the same number of clusters.  Clusters that know nothing of L equally frequent labels have about 1 / L; where all
examples have one label, any clusters are pure, so of generated images count the labels too.
"""

import numpy as np

from gm_jax.errors import UserError


def purity(labels, clusters) -> float:
  """Between 0 and 1; labels and clusters are integers [N] from 0 on."""
  table = contingency(labels, clusters)
  return float(table.max(1).sum() / table.sum())


def contingency(labels, clusters) -> np.ndarray:
  """How many examples each cluster has of each label, int [clusters, labels]; both come as integers [N] from 0 on."""
  labels, clusters = _checked(labels, "labels"), _checked(clusters, "clusters")
  if len(labels) != len(clusters):
    raise UserError(f"{len(labels)} labels and {len(clusters)} clusters; take one of each for every example")
  table = np.zeros((clusters.max() + 1, labels.max() + 1), int)
  np.add.at(table, (clusters, labels), 1)
  return table


def _checked(values, what: str) -> np.ndarray:
  values = np.asarray(values)
  if values.ndim != 1 or values.dtype.kind not in "iu" or not len(values) or values.min() < 0:
    raise UserError(f"{what} of shape {list(values.shape)} and type {values.dtype}; take integers [N] from 0 on")
  return values
