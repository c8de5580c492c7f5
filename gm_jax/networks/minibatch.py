"""Critics that see whether images resemble each other: a generator that makes one image only is found out at once.

Both layers below mix the examples of a batch by design, so each call must see fakes alone or data alone, and the logit of an
image depends on the batch that it came in, in evaluation too.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax import rows
from gm_jax.networks.players import Critic, judged


class MinibatchDiscrimination(nn.Module):
  """Features f [B, F] -> [B, kernels]: how close each example's neighbours are (Salimans et al. 2016, section 3.2).

  o(x_i)_k = sum_j exp(-|M_ik - M_jk|_1), M_i = f(x_i) T a matrix [kernels, dim].  The sum is over the whole global batch, the
  example itself (which gives 1) included.
  """

  kernels: int = 50
  dim: int = 5

  @nn.compact
  def __call__(self, f):
    ours = nn.Dense(self.kernels * self.dim, use_bias=False)(f).reshape(len(f), self.kernels, self.dim)
    theirs = _whole_batch(ours)
    distances = jnp.abs(ours[:, None] - theirs[None]).sum(-1)  # [B, all, kernels]
    return jnp.exp(-distances).sum(1)


class MinibatchCritic(Critic):
  """Any critic whose last layer also sees the closeness of its features to those of the other examples."""

  critic: nn.Module
  kernels: int = 50
  dim: int = 5

  @nn.compact
  def judge(self, x, train: bool, *label, **more):
    logits, features = judged(self.critic, x, train, *label, **more)
    closeness = MinibatchDiscrimination(self.kernels, self.dim)(features)
    # The two terms are one linear layer on both: the critic's own last layer is its first half.
    logits += nn.Dense(1, use_bias=False)(closeness)[:, 0]
    return logits, jnp.concatenate([features, closeness], -1)


def append_deviation(x, group: int | None = 4):
  """x [B, H, W, C] -> [B, H, W, C + 1]: one more channel, constant over the image, that holds `deviation(x, group)`."""
  spread = jnp.broadcast_to(deviation(x, group)[:, None, None, None], (*x.shape[:-1], 1))
  return jnp.concatenate([x, spread], -1)


def deviation(x, group: int | None = 4):
  """How much the examples of x [B, ...] differ, [B]: the minibatch standard deviation of Karras et al. 2018, section 3.

  That is the deviation over examples of every feature, averaged over features.  Examples are compared in groups of `group`
  neighbours, as in the paper's own code; None compares the whole global batch.  Groups are of consecutive rows, so that devices
  that hold whole groups hold the same groups as one device would, and nothing has to travel.  Where `group` does not divide
  the batch, there are as many groups as it takes, as even as can be.
  """
  values = x.reshape(len(x), -1)
  if group is None:
    mean = rows.batch_mean(values)
    var = rows.batch_mean(jnp.square(values - mean[None]))
    return jnp.broadcast_to(_root(var).mean(), (len(x),))
  count = -(-len(x) // group)
  member = np.eye(count, dtype=np.float32)[np.arange(len(x)) * count // len(x)]  # [B, groups]
  # Products, since sums by index come in any order on a GPU, and steps are to be repeated bit by bit.
  product = partial(jnp.matmul, precision="highest")
  mean = lambda values: product(member.T / member.sum(0)[:, None], values)
  var = mean(jnp.square(values - product(member, mean(values))))
  return product(member, _root(var).mean(-1))


def _root(var):
  return jnp.sqrt(var + 1e-8)  # identical examples have a gradient as well


def _whole_batch(x):
  """What all devices together hold of x [B, ...], in some order; x itself where the batch is in one piece."""
  size = rows.total(len(x))
  # Everyone adds its rows to an empty batch.  Counted from any first row, consecutive indices wrap round to the places 0 ...
  # size - 1, each taken once.
  return x if size == len(x) else rows.total(jnp.zeros((size, *x.shape[1:]), x.dtype).at[rows.indices(len(x)) % size].set(x))
