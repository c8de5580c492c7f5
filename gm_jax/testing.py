"""Property tests for generative models, yours included.

    from gm_jax import testing
    testing.check_contract(model, batch, reports="nll")          # everything that any GenerativeModel promises

Each function states one promise and raises AssertionError with what broke it.  The exact oracle of discrete models, that all
probabilities sum to one (`total_probability`), is here too.
"""

import itertools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import rows
from gm_jax.core import GenerativeModel


def check_contract(model: GenerativeModel, batch, reports: str, *, tolerance: float = 1e-4) -> None:
  """All of the promises below that need no training.

  Args:
    model: the model under test.
    batch: a small batch, {"image": [B, H, W, C], ...}.
    reports: the name its family reports under: "nll", "nll_bound", "critic", "denoising" or "reconstruction".
    tolerance: relative, for comparisons between two ways to run the same arithmetic.
  """
  key = jax.random.key(0)
  state = jax.jit(model.init)(key, batch)
  check_step_keeps_structure(model, state, batch)
  check_same_key_same_result(model, state, batch)
  check_jit_equals_no_jit(model, state, batch, tolerance)
  check_one_trace(model, state, batch)
  check_evaluate(model, state, batch, reports)
  check_sample(model, state, batch["image"])


def check_step_keeps_structure(model: GenerativeModel, state, batch) -> None:
  """The state after a step has the tree, shapes and dtypes of the state before; metrics are scalars."""
  after, metrics = jax.eval_shape(model.step, jax.random.key(1), state, batch)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
  for name, value in metrics.items():
    assert value.shape == (), f"metric {name} has shape {value.shape}, not a scalar"


def check_same_key_same_result(model: GenerativeModel, state, batch) -> None:
  """A step is a function of key, state and batch: bitwise the same when called twice."""
  step = jax.jit(model.step)
  chex.assert_trees_all_equal(step(jax.random.key(1), state, batch), step(jax.random.key(1), state, batch))


def check_jit_equals_no_jit(model: GenerativeModel, state, batch, tolerance: float) -> None:
  """Evaluation means the same compiled and not compiled."""
  key = jax.random.key(2)
  with jax.disable_jit():
    plain = model.evaluate(key, state, batch)
  chex.assert_trees_all_close(jax.jit(model.evaluate)(key, state, batch), plain, rtol=tolerance, atol=tolerance)


def check_one_trace(model: GenerativeModel, state, batch) -> None:
  """Many steps of one shape are traced once: nothing in the state changes type as it goes round."""
  after, _ = jax.jit(model.step)(jax.random.key(1), state, batch)
  assert jax.tree.structure(after) == jax.tree.structure(state), "the tree of the state changes in a step"
  for (path, now), then in zip(jax.tree.leaves_with_path(after), jax.tree.leaves(state)):
    kinds = jax.typeof(then), jax.typeof(now)  # weak types, which give way to others, are written with a ~
    assert kinds[0] == kinds[1], f"{jax.tree_util.keystr(path)} goes from {kinds[0]} to {kinds[1]} in a step"


def check_evaluate(model: GenerativeModel, state, batch, reports: str) -> None:
  """One finite number per example, under the family's name, whatever else is reported."""
  scores = jax.jit(model.evaluate)(jax.random.key(3), state, batch)
  assert reports in scores, f"evaluate reports {sorted(scores)}, not {reports!r}"
  for name, values in scores.items():
    assert values.shape == (len(batch["image"]),), f"evaluate's {name} has shape {values.shape}, not one number per example"
    assert bool(jnp.isfinite(values).all()), f"evaluate's {name} is not finite"


def check_sample(model: GenerativeModel, state, like, num: int = 5) -> None:
  """Samples have the shape and dtype of the data; image i does not depend on how many are drawn, or in which pieces."""
  key = jax.random.key(4)
  draw = jax.jit(model.sample, static_argnums=2)
  whole = draw(key, state, num)
  assert whole.shape == (num, *like.shape[1:]), f"samples {whole.shape} do not look like data {like.shape}"
  assert whole.dtype == like.dtype, f"samples are {whole.dtype}, data are {like.dtype}"
  assert len(np.unique(np.asarray(whole).reshape(num, -1), axis=0)) > 1, "all samples are the same"

  def from_third(key, state):
    with rows.view(first=2):
      return model.sample(key, state, num - 2)

  # One level of grey for rounding; floats to float accuracy.
  allowed = 1 if whole.dtype == jnp.uint8 else 1e-4
  difference = np.abs(np.asarray(jax.jit(from_third)(key, state), np.float64) - np.asarray(whole[2:], np.float64)).max()
  assert difference <= allowed, f"image i depends on the images drawn with it (largest difference {difference})"


def check_learns(model: GenerativeModel, batch, reports: str, steps: int) -> None:
  """After some steps on one batch, the evaluated score of that batch is lower."""
  state = jax.jit(model.init)(jax.random.key(0), batch)
  step, evaluate = jax.jit(model.step), jax.jit(model.evaluate)
  score = lambda state: float(evaluate(jax.random.key(5), state, batch)[reports].mean())
  before = score(state)
  for index in range(steps):
    state, _ = step(jax.random.key(index), state, batch)
  assert score(state) < before, f"{reports} went from {before} to {score(state)} in {steps} steps"


def check_strategies_agree(model: GenerativeModel, batches: list, strategies: list, *, tolerance: float = 1e-5) -> None:
  """The state after `len(batches)` steps is the same however the program is laid over devices.

  Args:
    model: the model under test.
    batches: one whole batch per step.
    strategies: `parallel.Strategy` values; the first is what the others are compared with.
    tolerance: of each array, relative to its largest entry (and absolute where that is below one).
  """
  initial = jax.device_get(strategies[0].init(model.init, 0, batches[0]))
  reference = None
  for strategy in strategies:
    state = _after(model, initial, batches, strategy)
    reference = state if reference is None else reference
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(reference)):
      allowed = tolerance * max(1.0, np.abs(theirs).max(initial=0.0))
      difference = np.abs(np.asarray(ours, np.float64) - theirs).max(initial=0.0)
      names = f"{strategy.name} and {strategies[0].name}"
      assert difference <= allowed, f"{names} differ by {difference} in {jax.tree_util.keystr(path)}"


def _after(model: GenerativeModel, state, batches: list, strategy):
  state = jax.device_put(state, strategy.shardings(state))
  step = strategy.step(model.step)
  for index, batch in enumerate(batches):
    # One step at a time: with more of them in flight than the machine has cores, collectives of XLA on CPU can wait for ever.
    state = jax.block_until_ready(step(np.uint32(0), np.int32(index), state, strategy.place_batch(batch))[0])
  return jax.device_get(state)


# Exact oracles.


def all_states(shape: tuple, levels: int = 2) -> np.ndarray:
  """Every array of `shape` with entries in range(levels), [levels ** size, *shape] int32."""
  size = int(np.prod(shape))
  return np.array(list(itertools.product(range(levels), repeat=size)), np.int32).reshape(-1, *shape)


def total_probability(log_prob: Callable, shape: tuple, levels: int = 2) -> float:
  """The sum of exp(log_prob(x)) over every x of `shape` [H, W, C]: one, if it is a probability.

  `log_prob` maps integers [N, *shape] to nats [N].
  """
  return float(jnp.exp(jax.nn.logsumexp(log_prob(all_states(shape, levels)))))
