"""The conditional variational autoencoder: p(x | y) for a label y, which encoder and decoder are both told.

    log p(x | y)  >=  E_q(z|x,y) [log p(x | y, z)]  -  KL(q(z | x, y) || p(z))

z is left to say what the label does not (Kingma et al. 2014, https://arxiv.org/abs/1406.5298; Sohn et al. 2015).  Whatever
trains, scores or draws from a `vae.VAE` does so with this one: `evaluate` bounds the likelihood given the batch's labels, and
samples take labels as their condition.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.approximate.vae import VAE
from gm_jax.networks.mlp import MLP


class ConditionalVAE(VAE):
  """A VAE whose q(z | x, y) and p(x | z, y) know the label.

  The encoder's features and the label meet in a hidden layer before the posterior, so any encoder serves; the decoder is given
  z and the label side by side, [B, Z + num_classes].
  """

  num_classes: int = 10
  hidden: int = 128  # units of the layer in which features and label meet
  activation: Callable = nn.relu

  def setup(self):
    self.posterior = MLP((self.hidden, 2 * self.num_latents), self.activation)

  def encode(self, x, train: bool, label=None):
    """Mean and log-variance of q(z | x, label int [B]), each [B, Z]."""
    return jnp.split(self.posterior(self._beside(self.encoder(x, train), label)), 2, axis=-1)

  def decode(self, z, train: bool, label=None):
    return self.decoder(self._beside(z, label), train)

  def encode_pseudo(self, x, train: bool):
    """Pseudo-input k is of class k modulo the number of classes."""
    return self.encode(x, train, jnp.arange(len(x)) % self.num_classes)

  def choose_labels(self, key, num: int, condition):
    """Of samples: what was asked for, and any class otherwise, all equally likely."""
    return random.randint(key, num, (), 0, self.num_classes) if condition is None else jnp.asarray(condition)

  def _beside(self, values, label):
    if label is None:
      raise ValueError('a conditional VAE needs labels: "label" int [B] in the batch, or an argument of its own')
    return jnp.concatenate([values, jax.nn.one_hot(label, self.num_classes)], axis=1)
