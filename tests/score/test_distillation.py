"""Progressive distillation on Gaussian data, where a step of DDIM is a factor and so is the student that takes two at once.

The network is a table of factors, one for each level, so that teacher and every round's student are known numbers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.score import (
  diffusion,
  distillation,
  grids,
  levels,
  noise,
  parameterizations,
  progressive,
  recipes,
  solvers,
  weights,
)
from gm_jax.train import train
from tests.score import gaussian

STD, ROUNDS = 0.5, 3
GRID = grids.karras(8, 0.05, 20.0)  # 8 steps, the last one to the image
SHAPE = (1, 1, 2)
GRIDS = {
  "to the image": GRID,
  "from nothing but noise": grids.in_time(noise.straight(), 8),
  "to a little noise": grids.in_log_snr(6.0, -6.0, 8, last=None),
}
POINTS = dict(image_shape=SHAPE, read=jnp.asarray, write=lambda x: x)


class Factors(nn.Module):
  """D = factor x, a factor for each level of GRID."""

  @nn.compact
  def __call__(self, x, number, label, train):
    factors = self.param("factors", nn.initializers.zeros, (len(GRID) - 1,))
    nearest = jnp.abs((20 - number / 25)[:, None] - jnp.asarray(GRID[None, :-1], jnp.float32)).argmin(1)
    return noise.like(factors[nearest], x) * x


MODULE = diffusion.Denoiser(Factors(), parameterizations.image())


def step_factor(factor, t, s):
  """What one step of DDIM multiplies x by."""
  method = solvers.DDIM()(np.array([t, s]))
  return method.weights[0, 0, 0] + method.weights[0, 0, 1] * factor


def best_factors():
  """E[x_0 | x] / x."""
  return gaussian.denoiser(0.0, STD)(1.0, GRID[:-1])


def students_of(factors):
  """Factors of each round's student, if each learnt all that there was to learn: its step goes where two of the teacher go."""
  found = []
  for done in range(ROUNDS):
    stride = 2**done
    ends, middles = GRID[:: 2 * stride], GRID[stride :: 2 * stride]
    factors = factors.copy()
    for index, (t, m, s) in enumerate(zip(ends[:-1], middles, ends[1:])):
      first = index * 2 * stride
      wanted = step_factor(factors[first], t, m) * step_factor(factors[first + stride], m, s)
      none, all_ = step_factor(0.0, t, s), step_factor(1.0, t, s)
      factors[first] = (wanted - none) / (all_ - none)
    found.append(factors)
  return found


def variables(factors):
  return {"params": {"network": {"factors": jnp.asarray(factors, jnp.float32)}}}


def model(optimizer=None, round_steps=5, **options):
  optimizer = optimizer or optax.sgd(0.0)
  told = dict(rounds=ROUNDS, round_steps=round_steps, weight=weights.image, **POINTS, **options)
  return progressive.progressive(MODULE, variables(best_factors()), optimizer, GRID, **told)


def state_of(chosen, teacher, student, round_):
  """The state in a round, of given factors."""
  state = chosen.init(jax.random.key(0), None)
  average = state.average._replace(variables=variables(student))
  net = state.net._replace(params=variables(student)["params"])
  return state._replace(net=net, average=average, teacher=variables(teacher), round=jnp.int32(round_))


def batch(num=256, seed=0):
  return {"image": (STD * np.random.default_rng(seed).standard_normal((num, *SHAPE))).astype(np.float32)}


@pytest.mark.parametrize("name", GRIDS)
def test_one_step_with_the_target_lands_where_two_steps_do(name):
  """In float64, for guesses that are not linear in x."""
  grid, denoise, x = GRIDS[name], gaussian.mixture(), np.array([-1.3, 0.2, 0.9])
  for t, m, s, row in zip(grid[:-1:2], grid[1::2], grid[2::2], zip(*progressive.pairs(grid))):
    log_snr, middle, keep, guessed, share = row
    assert (log_snr, middle) == (t, m)
    first = denoise(x, t)
    halfway = keep * x + guessed * first
    np.testing.assert_allclose(halfway, gaussian.follow(denoise, solvers.DDIM()(np.array([t, m])), x), rtol=1e-12)
    target = first + share * (denoise(halfway, m) - first)
    landed = gaussian.follow(lambda *_: target, solvers.DDIM()(np.array([t, s])), x)  # noqa: B023
    two = gaussian.follow(denoise, solvers.DDIM()(np.array([t, m, s])), x)
    np.testing.assert_allclose(landed, two, rtol=1e-11)
    assert np.abs(gaussian.follow(denoise, solvers.DDIM()(np.array([t, s])), x) - two).max() > 1e-4


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_the_exact_student_loses_nothing_and_is_left_alone(round_):
  chosen = model(optax.sgd(1.0))
  exact = students_of(best_factors())
  teacher = ([best_factors()] + exact)[round_]
  evaluate, step = jax.jit(chosen.evaluate), jax.jit(chosen.step)
  at = lambda student: state_of(chosen, teacher, student, round_)
  assert evaluate(jax.random.key(1), at(exact[round_]), batch())["denoising"].max() < 1e-10
  assert evaluate(jax.random.key(1), at(teacher), batch())["denoising"].mean() > 1e-5
  moved, metrics = step(jax.random.key(2), at(exact[round_]), batch())
  assert metrics["loss"] < 1e-10
  np.testing.assert_allclose(moved.net.params["network"]["factors"], exact[round_], atol=1e-5)
  moved, _ = step(jax.random.key(2), at(teacher), batch())
  stride = 2 ** (round_ + 1)
  change = np.abs(moved.net.params["network"]["factors"] - teacher)
  visited = np.arange(len(change)) % stride == 0
  assert change[visited].min() > 1e-5  # every step of the student's is practised
  assert change[~visited].max() < 1e-6  # and no other


def test_each_round_s_student_draws_what_the_first_teacher_draws():
  chosen, key = model(), jax.random.key(3)
  teacher = diffusion.Sampler(solvers.DDIM()(GRID))
  denoise = distillation.applied(MODULE, variables(best_factors()))
  expected = teacher(denoise, key, 16, SHAPE)
  factor = np.prod([step_factor(f, t, s) for f, t, s in zip(best_factors(), GRID[:-1], GRID[1:])])
  start = diffusion.random.normal(jax.random.split(key)[0], 16, SHAPE)
  np.testing.assert_allclose(expected, factor * start, rtol=1e-4)
  for round_, student in enumerate(students_of(best_factors())):
    drawn = jax.jit(chosen.sample, static_argnums=2)(key, state_of(chosen, best_factors(), student, round_), 16)
    np.testing.assert_allclose(drawn, expected, rtol=1e-4)


def test_eight_steps_become_one_by_training():
  """All rounds, by gradient descent: the last student's only step goes where the teacher's eight went."""
  chosen = model(optax.adam(optax.cosine_decay_schedule(0.05, 150)), round_steps=150, decay=0.5)
  step, state = jax.jit(chosen.step), chosen.init(jax.random.key(0), None)
  for index in range(150 * ROUNDS):
    state, metrics = step(jax.random.key(index), state, batch(64, index))
  assert metrics["round"] == ROUNDS - 1
  found = state.average.variables["params"]["network"]["factors"]
  exact = students_of(best_factors())[-1]
  np.testing.assert_allclose(found[0], exact[0], rtol=2e-3)
  assert abs(step_factor(best_factors()[0], GRID[0], np.inf) / exact[0]) < 0.5  # which is far from where training began


def test_the_student_of_a_round_is_the_teacher_of_the_next():
  chosen = model(optax.adam(0.1), round_steps=2)
  step, states = jax.jit(chosen.step), [chosen.init(jax.random.key(0), None)]
  for index in range(8):
    states.append(step(jax.random.key(index), states[-1], batch())[0])
  assert [int(state.round) for state in states] == [0, 0, 0, 1, 1, 2, 2, 2, 2]  # the last round has no end
  assert [int(state.steps) for state in states] == [0, 1, 2, 1, 2, 1, 2, 3, 4]
  factors = lambda variables: np.asarray(variables["params"]["network"]["factors"])
  for before, after in zip(states, states[1:]):
    if after.round == before.round:
      np.testing.assert_array_equal(factors(after.teacher), factors(before.teacher))
    else:
      np.testing.assert_array_equal(factors(after.teacher), factors(before.average.variables))
      assert optax.tree.get(after.net.opt_state, "count") == 1 == after.average.updates
      # Adam's first step is of the learning rate's length, from where the teacher is.
      moved = np.abs(factors({"params": after.net.params}) - factors(after.teacher))
      assert moved.max() == pytest.approx(0.1, rel=1e-3)


def test_guidance_is_learnt_once():
  """The first teacher is led; those who learnt from it are not led again."""
  twice = lambda denoise: lambda x, log_snr, label=None: 1.2 * denoise(x, log_snr, label)
  chosen = model(guidance=(twice,))
  evaluate, best = jax.jit(chosen.evaluate), best_factors()
  led, plain = students_of(1.2 * best), students_of(best)
  at_first, later = state_of(chosen, best, led[0], 0), state_of(chosen, plain[0], plain[1], 1)
  for state in (at_first, later):
    assert evaluate(jax.random.key(1), state, batch())["denoising"].max() < 1e-10


def test_labels_are_hidden_from_teacher_and_student_alike():
  """What the network says is the label's number; so agreement is hearing the same."""

  class Named(nn.Module):
    @nn.compact
    def __call__(self, x, number, label, train):
      table = self.param("table", lambda *_: jnp.array([1.0, 2.0, 3.0, 10.0]))
      return jnp.broadcast_to(noise.like(table[jnp.full(len(x), 3) if label is None else label], x), x.shape)

  module = diffusion.Denoiser(Named(), parameterizations.image(), 3)
  given = {**batch(), "label": np.arange(256, dtype=np.int32) % 3}
  taught = {"params": {"network": {"table": jnp.array([1.0, 2.0, 3.0, 10.0])}}}
  told = dict(rounds=1, round_steps=1, label_dropout=0.5, weight=weights.image, **POINTS)
  chosen = progressive.progressive(module, taught, optax.sgd(0.1), GRID, **told)
  state = chosen.init(jax.random.key(0), given)
  assert jax.jit(chosen.step)(jax.random.key(1), state, given)[1]["loss"] < 1e-9
  drawn = chosen.sample(jax.random.key(0), state, 3, jnp.arange(3))
  np.testing.assert_allclose(drawn[:, 0, 0, 0], [1, 2, 3], rtol=1e-5)


@pytest.mark.parametrize("rounds", [0, 4])
def test_steps_that_cannot_be_halved_are_refused(rounds):
  with pytest.raises(UserError, match="cannot be halved"):
    progressive.progressive(MODULE, variables(best_factors()), optax.sgd(0.0), GRID, rounds=rounds, round_steps=1, **POINTS)
  with pytest.raises(UserError, match="even number"):
    progressive.pairs(GRID[:-1])


# A teacher and its student in one run.

RECIPE = recipes.Recipe(parameterizations.image(), levels.only(noise.ratio(GRID[:-1])), weights.image)
FIRST = 3


def both():
  first = diffusion.diffusion(Factors(), optax.adam(0.05), RECIPE, diffusion.Sampler(solvers.DDIM()(GRID)), **POINTS)
  told = dict(rounds=2, round_steps=2, weight=weights.image, **POINTS)
  second = lambda teacher: progressive.progressive(MODULE, teacher, optax.adam(0.1), GRID, **told)
  return first, second, distillation.after(first, second, first_steps=FIRST)


def test_the_teacher_learns_first_and_then_stays_as_it_is():
  first, second, chosen = both()
  states, step = [chosen.init(jax.random.key(0), batch())], jax.jit(chosen.step)
  draw, evaluate = jax.jit(chosen.sample, static_argnums=2), jax.jit(chosen.evaluate)
  for index in range(FIRST + 3):
    states.append(step(jax.random.key(index), states[-1], batch())[0])
  same = lambda a, b: all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
  for index, (before, after) in enumerate(zip(states, states[1:])):
    assert same(before.first, after.first) == (index >= FIRST)
    assert same(before.second, after.second) == (index < FIRST)
  alone = first.init(jax.random.split(jax.random.key(0))[0], batch())
  for index in range(FIRST):
    alone, _ = jax.jit(first.step)(jax.random.key(index), alone, batch())
  for ours, theirs in zip(jax.tree.leaves(states[FIRST].first), jax.tree.leaves(alone)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  learnt = states[FIRST].first.average.variables
  assert same(states[FIRST + 1].second.teacher, learnt)
  # Samples and scores are the teacher's until there is a student.
  for state, owner in ((states[FIRST], first), (states[-1], second(learnt))):
    own = state.first if owner is first else state.second
    np.testing.assert_allclose(draw(jax.random.key(5), state, 4), owner.sample(jax.random.key(5), own, 4), rtol=1e-5)
    scores = owner.evaluate(jax.random.key(6), own, batch())["denoising"]
    np.testing.assert_allclose(evaluate(jax.random.key(6), state, batch())["denoising"], scores, rtol=1e-4, atol=1e-9)


def test_a_run_is_resumed_in_any_stage_and_round(tmp_path):
  chosen = both()[-1]
  whole = train(chosen, lambda step: batch(8, step), seed=0, steps=9)
  for stop in (2, 4, 6, 9):
    resumed = train(chosen, lambda step: batch(8, step), seed=0, steps=stop, run=tmp_path / "run", save_every=0)
  for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
  assert whole.second.round == 1
