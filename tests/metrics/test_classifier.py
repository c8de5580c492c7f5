"""The judge: it computes what it says, its rows belong to examples, and on real digits it is as sure as it is right."""

import jax
import numpy as np
import optax
import pytest

from experiments import judge as script
from gm_jax import data, rows
from gm_jax.metrics import classifier

MODULE = classifier.Classifier(10, channels=(16, 32), hidden=64)
SHIFTED = jax.jit(classifier.shifted, static_argnums=2)


@pytest.fixture(scope="module")
def digits():
  return {split: data.digits(split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
  """(module, variables, run directory) after 400 steps on the embedded digits."""
  run = tmp_path_factory.mktemp("judge") / "run"
  return *script.train_classifier(digits["train"], seed=0, steps=400, run=run), run


def test_it_reads_digits_and_is_as_sure_as_it_is_right(trained, digits):
  module, variables, _ = trained
  test = digits["test"].arrays
  found = classifier.probabilities(module, variables, test["image"])
  accuracy = (found.argmax(-1) == test["label"]).mean()
  assert accuracy > 0.95
  assert abs(classifier.judge(module, variables, test["image"])["confidence"] - accuracy) < 0.05


def test_probabilities_are_of_the_head_on_the_features_at_any_batch_size(trained, digits):
  module, variables, _ = trained
  pictures = digits["test"].arrays["image"][:37]
  found = classifier.probabilities(module, variables, pictures)
  head = variables["params"]["head"]
  logits = classifier.features(module, variables, pictures, batch_size=8) @ head["kernel"] + np.asarray(head["bias"])[None]
  np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)
  np.testing.assert_allclose(classifier.probabilities(module, variables, pictures, batch_size=7), found, atol=1e-6)


def test_judge_counts(trained, digits):
  """Shares and confidence of images whose verdict is known, one by one."""
  module, variables, _ = trained
  pictures = digits["test"].arrays["image"]
  single = classifier.probabilities(module, variables, pictures)
  threes, fives = (pictures[single.argmax(-1) == digit] for digit in (3, 5))
  mixed = np.concatenate([threes[:6], fives[:2]])
  verdict = classifier.judge(module, variables, mixed)
  assert verdict["shares"] == [0, 0, 0, 0.75, 0, 0.25, 0, 0, 0, 0]
  assert verdict["smallest_share"] == 0
  assert verdict["count"] == 8
  largest = np.concatenate([single[single.argmax(-1) == 3].max(-1)[:6], single[single.argmax(-1) == 5].max(-1)[:2]])
  np.testing.assert_allclose(verdict["confidence"], largest.mean(), rtol=1e-5)


def test_accuracy_is_of_each_class(trained, digits):
  """Images whose verdict is known, some of them asked for as something else."""
  module, variables, _ = trained
  pictures = digits["test"].arrays["image"]
  found = classifier.probabilities(module, variables, pictures).argmax(-1)
  asked = np.concatenate([pictures[found == 3][:6], pictures[found == 5][:2]])
  counts = classifier.accuracy(module, variables, asked, [3, 3, 3, 4, 4, 3, 5, 4])
  assert counts["accuracy"] == 5 / 8
  assert counts["accuracies"] == [None, None, None, 1.0, 0.0, 1.0, None, None, None, None]


def test_a_set_against_itself_is_all_there_and_against_another_kind_is_not(trained, digits):
  module, variables, _ = trained
  features = classifier.features(module, variables, digits["test"].arrays["image"])
  label = digits["test"].arrays["label"]
  same = script.compare(features, features)
  assert abs(same.pop("frechet")) < 1e-6 * np.square(features).sum(1).mean()
  assert same.pop("density") >= 1  # ties
  assert same == {"precision": 1, "recall": 1, "coverage": 1}
  low, high = features[label == 0], features[label == 7]
  other = script.compare(low, high)
  assert max(other["precision"], other["recall"], other["coverage"]) < 0.1
  assert other["frechet"] > np.square(features.std(0)).sum() / 2


def test_a_kept_judge_is_given_back(trained, digits, monkeypatch):
  module, variables, run = trained
  before = (run / "metrics.jsonl").read_bytes()
  _, again = script.train_classifier(digits["train"], seed=0, steps=400, run=run)
  jax.tree.map(np.testing.assert_array_equal, variables, again)
  assert (run / "metrics.jsonl").read_bytes() == before


def test_objective_is_the_cross_entropy_of_the_label(digits):
  batch = {name: array[:16] for name, array in digits["train"].arrays.items()}
  model = classifier.classifier(MODULE, optax.sgd(0.1))
  state = jax.jit(model.init)(jax.random.key(0), batch)
  scores = jax.jit(model.evaluate)(jax.random.key(1), state, batch)
  found = classifier.probabilities(MODULE, state.average.variables, batch["image"])
  np.testing.assert_allclose(scores["cross_entropy"], -np.log(found[np.arange(16), batch["label"]]), rtol=1e-4)
  np.testing.assert_array_equal(scores["error"], found.argmax(-1) != batch["label"])


def test_shifts_are_all_the_translations_and_belong_to_the_example():
  x = np.random.default_rng(0).uniform(-1, 1, (400, 6, 6, 1)).astype(np.float32)
  x[:] = x[:1]
  moved = np.asarray(SHIFTED(jax.random.key(0), x, 2))
  padded = np.pad(x[0], ((2, 2), (2, 2), (0, 0)), constant_values=-1)
  translations = np.stack([padded[i : i + 6, j : j + 6] for i in range(5) for j in range(5)])
  which = (moved[:, None] == translations[None]).all((2, 3, 4))
  assert (which.sum(1) == 1).all()
  assert (which.sum(0) >= 4).all()  # 16 expected of each
  with rows.view(first=100):
    np.testing.assert_array_equal(classifier.shifted(jax.random.key(0), x[100:150], 2), moved[100:150])


def test_it_draws_no_images(digits):
  model = classifier.classifier(MODULE, optax.sgd(0.1))
  state = jax.eval_shape(model.init, jax.random.key(0), {name: array[:2] for name, array in digits["train"].arrays.items()})
  with pytest.raises(TypeError, match="no images"):
    jax.eval_shape(lambda key, state: model.sample(key, state, 3), jax.random.key(0), state)


@pytest.mark.parametrize("arguments", [["{run}"], ["{run}", "--num", "0"], ["/gone"]])
def test_the_script_answers_bad_input_in_one_line(trained, arguments, capsys):
  """The judge's own directory is a run, but of no experiment."""
  assert script.main([argument.format(run=trained[-1]) for argument in arguments]) == 2
  captured = capsys.readouterr()
  assert captured.out == ""
  assert captured.err.count("\n") == 1
