"""Model M2: its bounds against their definitions, class by class, and what the unlabelled teach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import data
from gm_jax.approximate import semi_supervised, vae
from gm_jax.approximate.conditional_vae import ConditionalVAE
from gm_jax.core import run
from gm_jax.distributions import kl_categorical
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from tests import models

CLASSES = 4
ALPHA = 3.0
KEY = jax.random.key(3)


def make(shape=(8, 8, 1), num_classes=CLASSES, num_hidden=16, alpha=ALPHA):
  networks = FlatEncoder((num_hidden,)), FlatDecoder((num_hidden,), shape), vae.bernoulli()
  sizes = dict(num_latents=3, num_classes=num_classes, hidden=num_hidden)
  module = semi_supervised.SemiSupervisedVAE(*networks, **sizes, classifier=FlatEncoder((num_hidden,)))
  return module, semi_supervised.semi_supervised(module, optax.adam(3e-3), alpha=alpha, decay=0.9)


@functools.cache
def half_labelled():
  """(module, model, state, batch); every second example has no label."""
  module, model = make()
  batch = models.binary(0)
  label = np.where(np.arange(16) % 2, -1, batch["label"] % CLASSES).astype(np.int32)
  batch = {**batch, "label": label}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  for index in range(10):
    state, _ = jax.jit(model.step)(jax.random.key(index), state, batch)
  return module, model, state, batch


def parts():
  """L(x, y) and the classifier's logits, [B, K] each, with the draws that `evaluate` makes of KEY."""
  module, _, state, batch = half_labelled()

  def both(model, key, train):
    data_key, latent_key = jax.random.split(key)
    x = model.likelihood.observe(data_key, batch["image"])
    return semi_supervised.class_bounds(model, latent_key, x, train), model.classify(x, train)

  return run(module, both, state.average.variables, KEY, train=False)[0]


def test_each_class_has_the_bound_of_the_conditional_vae():
  """L(x, y) is minus the conditional VAE's own bound, with the same parameters and noise, and log p(y)."""
  module, _, state, batch = half_labelled()
  bounds, _ = parts()
  fields = "encoder", "decoder", "likelihood", "num_latents", "prior", "num_classes", "hidden"
  conditional = ConditionalVAE(**{name: getattr(module, name) for name in fields})
  params = {name: leaf for name, leaf in state.average.variables["params"].items() if name not in ("classifier", "head")}
  for label in range(CLASSES):
    asked = {**batch, "label": np.full(16, label)}
    (loss, _), _ = run(conditional, vae.negative_elbo(), {"params": params}, KEY, asked, train=False)
    np.testing.assert_allclose(bounds[:, label], -loss - np.log(CLASSES), rtol=1e-5)


def test_the_unlabelled_bound_falls_short_of_the_sum_over_classes_by_what_the_classifier_misses():
  bounds, logits = parts()
  unlabelled = semi_supervised.unlabelled_bound(logits, bounds)
  probs, exact = np.exp(jax.nn.log_softmax(logits), dtype=np.float64), np.asarray(bounds, np.float64)
  by_enumeration = sum(probs[:, y] * (exact[:, y] - np.log(probs[:, y])) for y in range(CLASSES))
  np.testing.assert_allclose(unlabelled, by_enumeration, rtol=1e-5)
  marginal = np.logaddexp.reduce(exact, axis=1)
  np.testing.assert_allclose(marginal - unlabelled, kl_categorical(logits[:, None], bounds[:, None]), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(semi_supervised.unlabelled_bound(bounds, bounds), marginal, rtol=1e-5)  # Bayes' rule is the best


def test_evaluation_reads_no_label_but_to_grade():
  module, model, state, batch = half_labelled()
  bounds, logits = parts()
  scores = model.evaluate(KEY, state, batch)
  np.testing.assert_allclose(scores["nll_bound"], -semi_supervised.unlabelled_bound(logits, bounds), rtol=1e-5)
  np.testing.assert_array_equal(scores["accuracy"], np.argmax(logits, 1) == batch["label"])
  alone = model.evaluate(KEY, state, {"image": batch["image"]})
  np.testing.assert_allclose(alone["nll_bound"], scores["nll_bound"], rtol=1e-5)
  log_probs = semi_supervised.class_log_probs(module, jax.random.key(0), state, batch["image"])
  np.testing.assert_allclose(log_probs, jax.nn.log_softmax(logits), atol=1e-5)


def test_labelled_and_unlabelled_examples_have_losses_of_their_own():
  module, _, state, batch = half_labelled()
  bounds, logits = (np.asarray(part, np.float64) for part in parts())
  (losses, _), _ = run(module, semi_supervised.objective(ALPHA), state.average.variables, KEY, batch, train=True)
  log_q = np.asarray(jax.nn.log_softmax(logits))
  for row, label in enumerate(batch["label"]):
    if label < 0:
      expected = -(np.exp(log_q[row]) * (bounds[row] - log_q[row])).sum()
    else:
      expected = -bounds[row, label] - ALPHA * log_q[row, label]
    np.testing.assert_allclose(losses[row], expected, rtol=1e-5)


def test_no_label_means_no_gradient_from_labels():
  """What is written where no label is has no effect: -1 is not the last class."""
  module, _, state, batch = half_labelled()

  def gradient(label):
    def loss(params):
      of = semi_supervised.objective(ALPHA), {"params": params}, KEY, {**batch, "label": label}
      (losses, _), _ = run(module, *of, train=True)
      return losses[1::2].sum()  # of those without a label

    return jax.jit(jax.grad(loss))(state.net.params)

  ours, theirs = gradient(batch["label"]), gradient(np.where(batch["label"] < 0, -7, batch["label"]))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  unlabelled_head = ours["head"]["kernel"]
  last = gradient(np.where(batch["label"] < 0, CLASSES - 1, batch["label"]))["head"]["kernel"]
  assert float(jnp.abs(unlabelled_head - last).max()) > 1e-3


def test_it_learns_to_read_digits_from_few_labels():
  """A tenth of the digits is labelled; accuracy on the test split is far above chance, which is a tenth."""
  train, test = data.digits("train"), data.digits("test")
  module, model = make(num_classes=10, num_hidden=64, alpha=20.0)
  image, label = train.arrays["image"], train.arrays["label"].copy()
  label[np.arange(len(label)) % 10 > 0] = -1
  fetch = data.batches(data.binarized(data.from_arrays(image, label), "dynamic"), 100, seed=0)
  stacked = [fetch(index) for index in range(150)]
  batches = jax.tree.map(lambda *leaves: np.stack(leaves), *stacked)
  state = jax.jit(model.init)(jax.random.key(0), fetch(0))

  def step(state, now):
    index, batch = now
    return model.step(jax.random.fold_in(jax.random.key(1), index), state, batch)

  state, _ = jax.jit(lambda state: jax.lax.scan(step, state, (np.arange(150), batches)))(state)
  binary = {"image": (test.arrays["image"] > 127) * np.uint8(255), "label": test.arrays["label"]}
  assert float(jax.jit(model.evaluate)(jax.random.key(2), state, binary)["accuracy"].mean()) > 0.6
