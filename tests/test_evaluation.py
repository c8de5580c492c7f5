"""A split is scored once, example by example; the mean and its error are those of the examples and of nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import data, evaluation, parallel, random
from gm_jax.errors import NonFiniteError

SPLIT = data.from_arrays(np.random.default_rng(0).integers(0, 256, (37, 2, 3, 1), np.uint8), split="test")


def brightness(key, state, batch):
  del key
  return {"reconstruction": state * batch["image"].astype(jnp.float32).sum((1, 2, 3))}


def noisy(key, state, batch):
  """What an example scores depends on a draw, as in every bound that is estimated by sampling."""
  return {"nll": random.normal(key, len(batch["image"])) + brightness(key, state, batch)["reconstruction"]}


def evaluate(measure, *, batch_size=8, strategy=parallel.dp, dataset=SPLIT, **options):
  options = {"seed": 0, **options}
  return evaluation.evaluate(measure, jnp.float32(2), dataset, batch_size=batch_size, strategy=strategy(), **options)


def test_mean_and_standard_error_are_those_of_the_examples():
  # 37 examples in batches of 8: three rows of the last batch are padding.
  report = evaluate(brightness)["metrics"]["reconstruction"]
  expected = 2.0 * SPLIT.arrays["image"].sum((1, 2, 3))
  assert report["count"] == 37
  assert report["unit"] == "1"
  np.testing.assert_allclose(report["mean"], expected.mean(), rtol=1e-12)
  np.testing.assert_allclose(report["stderr"], expected.std(ddof=1) / np.sqrt(37), rtol=1e-12)


@pytest.mark.parametrize("strategy", [parallel.single, parallel.dp, parallel.pmap])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_the_draws_of_an_example_belong_to_it(batch_size, strategy):
  reference = evaluation.per_example(noisy, jnp.float32(2), SPLIT, batch_size=37, seed=3, strategy=parallel.single())
  scores = evaluation.per_example(noisy, jnp.float32(2), SPLIT, batch_size=batch_size, seed=3, strategy=strategy())
  np.testing.assert_array_equal(scores["nll"], reference["nll"])


def test_another_seed_draws_anew():
  assert evaluate(noisy, seed=1)["metrics"] != evaluate(noisy, seed=2)["metrics"]


def test_sums_are_taken_in_double_precision():
  # One large score among many small: in float32 the small ones would vanish.
  large = lambda key, state, batch: {"critic": jnp.where(batch["label"] == 0, 2.0**26, 1.0)}
  many = data.from_arrays(np.zeros((4096, 1, 1, 1), np.uint8), np.arange(4096))
  assert evaluate(large, dataset=many, batch_size=64)["metrics"]["critic"]["mean"] == (2**26 + 4095) / 4096


def test_the_uniform_density_scores_eight_bits():
  uniform = lambda key, state, batch: {"nll": jnp.zeros(len(batch["image"]))}
  report = evaluate(uniform, protocol={"bin_width": 1 / 256})
  assert report["metrics"]["nll_bits_per_dim"] == {"mean": 8.0, "stderr": 0.0, "unit": "bits/dim", "count": 37}
  assert report["metrics"]["nll"]["unit"] == "nats"
  assert report["protocol"] == {**SPLIT.protocol, "num_dims": 6, "seed": 0, "bin_width": 1 / 256}


def test_bits_are_not_reported_without_a_bin_width():
  assert [*evaluate(noisy)["metrics"]] == ["nll"]


def test_a_nan_is_raised_and_names_the_example():
  bad = lambda key, state, batch: {"nll": jnp.where(batch["label"] == 21, jnp.nan, 1.0)}
  labelled = data.from_arrays(SPLIT.arrays["image"], np.arange(37))
  with pytest.raises(NonFiniteError, match="nll of example 21 is nan"):
    evaluate(bad, dataset=labelled)


def test_a_nan_in_the_padding_is_nobodys():
  # The last example fills up the last batch; whatever the filling scores is masked.
  def bad(key, state, batch):
    row = jax.lax.broadcasted_iota(jnp.int32, (len(batch["image"]),), 0)
    return {"nll": jnp.where((row >= 5) & (batch["label"] == 36), jnp.nan, 1.0)}

  labelled = data.from_arrays(SPLIT.arrays["image"], np.arange(37))
  assert evaluate(bad, dataset=labelled, batch_size=16, strategy=parallel.single)["metrics"]["nll"]["count"] == 37


def test_parts_of_the_rate_are_in_nats_and_what_is_unknown_has_no_unit():
  names = "rate", "rate_top", "rate_1", "hole", "psnr", "accuracy"
  units = {name: evaluation.summary(name, np.ones(3))["unit"] for name in names}
  assert units == dict(rate="nats", rate_top="nats", rate_1="nats", hole="nats", psnr="dB", accuracy="1")
