"""Digits of which pixels were erased, and a small network that fills them in.

Family: reconstruction
"""

from dataclasses import dataclass

import optax

from experiments import base
from gm_jax.networks.residual import ResidualNet
from gm_jax.reconstruction import corruptions, restoration
from gm_jax.tasks import restoration as tasks

MODULE, CORRUPT = restoration.Restorer(ResidualNet(4, (1,))), corruptions.masking(0.3)


@dataclass(frozen=True)
class Config(base.Run):
  steps: int = 2
  batch_size: int = 64
  num_samples: int = 4


def data(config):
  del config
  return base.digits()


def model(config):
  del config
  return restoration.restoration(MODULE, optax.adam(1e-3), CORRUPT)


def restorer(config):
  del config
  return tasks.Restoration(CORRUPT, lambda state, x: restoration.restore(MODULE, state, x), {"median": tasks.median})


def features(config):
  """The upper half of the pixels."""
  del config
  return lambda state, pixels: pixels.reshape(len(pixels), -1)[:, :32] / 255.0
