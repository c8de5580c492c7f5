"""Learning from few labels and many images: a conditional VAE, a classifier, and one bound for both kinds of example.

With L(x, y) <= log p(x, y), the bound of a conditional VAE and log p(y), and a classifier q(y | x),

    labelled      -L(x, y)  -  alpha log q(y | x)
    unlabelled     sum_y q(y | x) (log q(y | x) - L(x, y))  =: -U(x),    U(x) <= log sum_y exp L(x, y)

are what is minimised (model M2 of Kingma et al. 2014, https://arxiv.org/abs/1406.5298, equations 6 to 9).  The sum over classes
is taken exactly, at the cost of a decoding for each.  U(x) falls short by KL(q(y | x) || softmax_y L(x, y)): from images
without labels the classifier learns what Bayes' rule says of them.

Which examples are labelled comes with the data: a label of -1 is none.  Classes are taken to be equally likely.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import random
from gm_jax.approximate.conditional_vae import ConditionalVAE
from gm_jax.approximate.vae import mean_sample
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.distributions import categorical_entropy


class SemiSupervisedVAE(ConditionalVAE, kw_only=True):
  """A conditional VAE with a classifier q(y | x) beside it."""

  classifier: nn.Module  # (x [B, H, W, C], train) -> features [B, F]

  def setup(self):
    super().setup()
    self.head = nn.Dense(self.num_classes)

  def classify(self, x, train: bool):
    """Logits of q(y | x), [B, K]."""
    return self.head(self.classifier(x, train))


def class_bounds(vae: SemiSupervisedVAE, key, x, train: bool):
  """L(x, y) for every class, nats [B, K]; the classes share the noise that z is drawn with."""
  batch_size, num_classes = len(x), vae.num_classes
  repeat = lambda a: jnp.repeat(a, num_classes, axis=0)  # [B * K, ...]
  label = jnp.tile(jnp.arange(num_classes), batch_size)
  noise = repeat(random.normal(key, batch_size, (vae.num_latents,)))
  mean, log_var = vae.encode(repeat(x), train, label)
  z = mean + jnp.exp(log_var / 2) * noise
  log_likelihood = vae.likelihood.log_prob(vae.decode(z, train, label), repeat(x))
  bounds = log_likelihood - vae.rates(z, mean, log_var, train).sum(1) - math.log(num_classes)
  return bounds.reshape(batch_size, num_classes)


def unlabelled_bound(logits, bounds):
  """U(x): q(y | x) by its logits and L(x, y), each [B, K] -> nats [B]."""
  return (jax.nn.softmax(logits) * bounds).sum(1) + categorical_entropy(logits[:, None])


def objective(alpha: float):
  """In training the loss of each example by whether it has a label; in evaluation -U(x), which reads none."""

  def losses(vae: SemiSupervisedVAE, key, batch, train: bool):
    data_key, latent_key = jax.random.split(key)
    x = vae.likelihood.observe(data_key, batch["image"])
    bounds, logits = class_bounds(vae, latent_key, x, train), vae.classify(x, train)
    unlabelled = -unlabelled_bound(logits, bounds)
    if "label" not in batch:
      return unlabelled, {}
    right = logits.argmax(1) == batch["label"]  # never, where there is no label
    accuracy = {"accuracy": right.astype(jnp.float32)}
    if not train:
      return unlabelled, accuracy
    has_label = batch["label"] >= 0
    of_label = lambda values: jnp.take_along_axis(values, jnp.maximum(batch["label"], 0)[:, None], 1)[:, 0]
    labelled = -of_label(bounds) - alpha * of_label(nn.log_softmax(logits))
    return jnp.where(has_label, labelled, unlabelled), {**accuracy, "labelled": has_label.astype(jnp.float32)}

  return losses


def semi_supervised(
  module: SemiSupervisedVAE, optimizer: optax.GradientTransformation, *, alpha: float = 1.0, decay: float = 0.999
) -> GenerativeModel:
  """Model M2; evaluate returns `nll_bound` of the image without its label and, where there are labels, `accuracy`.

  Args:
    module: networks, likelihood, classes and classifier.
    optimizer: one, for all networks.
    alpha: nats that a nat of a labelled example's cross-entropy counts; the paper takes a tenth of the number of examples for
      each labelled one.
    decay: of the average of the parameters.
  """
  return from_objective(module, objective(alpha), mean_sample, optimizer, reports="nll_bound", decay=decay)


def class_log_probs(module: SemiSupervisedVAE, key, state, pixels):
  """log q(y | x) of images uint8 [B, H, W, C] by the classifier, [B, K]."""
  classify = lambda vae: nn.log_softmax(vae.classify(vae.likelihood.observe(key, pixels), train=False))
  return nn.apply(classify, module)(state.average.variables)
