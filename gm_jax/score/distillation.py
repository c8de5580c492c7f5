"""Distillation: a student learns to do in few steps what its teacher does in many.

    teacher   a denoiser that has been trained, fixed
    student   the same network, which starts where the teacher is

What is learnt is a lesson, which is an objective that may ask the teacher: reflow.py, progressive.py.  Lessons are repeated in
rounds, and the student of a round is the teacher of the next.  All of it is in one state, so a run of any age is resumed,
sampled and evaluated like any other.  `after` has the teacher learn in the same run.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.core import (
  Average,
  Collections,
  GenerativeModel,
  Trainable,
  begin_average,
  descend,
  run,
  update_average,
)
from gm_jax.errors import UserError
from gm_jax.score.diffusion import Denoiser
from gm_jax.score.parameterizations import Parameterization


class State(NamedTuple):
  """The student, its average, which `sample` and `evaluate` read, and who teaches it."""

  net: Trainable
  average: Average
  teacher: Collections  # of the round
  round: jax.Array  # int32 []
  steps: jax.Array  # int32 [], taken in this round


class Teacher(NamedTuple):
  """What a lesson may ask."""

  denoise: Callable  # (x, log_snr, label) -> x_0, guided in the first round
  round: jax.Array  # int32 []


def distillation(
  module: Denoiser,
  teacher: Collections,
  lesson: Callable,
  sample: Callable,
  optimizer: optax.GradientTransformation,
  *,
  rounds: int = 1,
  round_steps: int = 0,
  guidance: Sequence[Callable] = (),
  decay: float = 0.999,
) -> GenerativeModel:
  """The model of a student; `evaluate` reports "denoising", the lesson's error.

  Args:
    module: teacher and student.
    teacher: the first teacher's variables: `state.average.variables` of a model that diffusion.py made of the same parts.
    lesson: `(bound student, key, Teacher, batch, train) -> (losses [B], {name: [B]})`.
    sample: `(student as a denoiser, key, num, condition, round int32 []) -> images [num, H, W, C]`.
    optimizer: any optax transformation; it is as new in each round, and its schedules count the steps of a round.
    rounds: how many; the last has no end.
    round_steps: of each round.
    guidance: functions denoiser -> denoiser, what the first teacher is sampled with; the student learns it with the rest.
    decay: of the student's average.
  """
  if rounds < 1 or (rounds > 1 and round_steps < 1):
    raise UserError(f"{rounds} rounds of {round_steps} steps; take at least 1 of each")

  def teaching(state: State) -> Teacher:
    denoise = applied(module, state.teacher)
    guided = steered(denoise, guidance)
    if not guidance or rounds == 1:
      return Teacher(guided, state.round)
    # Later teachers were taught by the guided one, and are not led that way twice.
    choose = lambda x, log_snr, label=None: jax.lax.cond(state.round == 0, guided, denoise, x, log_snr, label)
    return Teacher(choose, state.round)

  def begun(variables, round_):
    net = started(variables, optimizer)
    return State(net, begin_average(net), _copied(variables), round_, jnp.zeros((), jnp.int32))

  def init(key, batch):
    del key, batch
    return begun(teacher, jnp.zeros((), jnp.int32))

  def step(key, state, batch):
    if rounds > 1:
      over = (state.steps >= round_steps) & (state.round < rounds - 1)
      promoted = lambda state: begun(state.average.variables, state.round + 1)
      state = jax.lax.cond(over, promoted, lambda state: state, state)
    net, metrics = descend(module, lesson, optimizer, state.net, key, teaching(state), batch)
    average = update_average(state.average, net, decay)
    state = state._replace(net=net, average=average, steps=state.steps + 1)
    return state, {**metrics, "round": state.round.astype(jnp.float32)}

  def draw(key, state, num, condition=None):
    return sample(applied(module, state.average.variables), key, num, condition, state.round)

  def evaluate(key, state, batch):
    (losses, parts), _ = run(module, lesson, state.average.variables, key, teaching(state), batch, train=False)
    return {"denoising": losses, **parts}

  return GenerativeModel(init, step, draw, evaluate)


def applied(module: Denoiser, variables: Collections) -> Callable:
  """The denoiser of given variables."""
  return lambda x, log_snr, label=None: module.apply(variables, x, log_snr, label)


def steered(denoise: Callable, guidance: Sequence[Callable]) -> Callable:
  return functools.reduce(lambda denoise, transform: transform(denoise), guidance, denoise)


def started(variables: Collections, optimizer: optax.GradientTransformation) -> Trainable:
  """A player that begins with given variables."""
  stats = dict(_copied(variables))
  params = stats.pop("params")
  return Trainable(params, stats, optimizer.init(params))


def check_start(parameterization: Parameterization, log_snr: float):
  """ValueError if the guess is not defined at the first level of a sampler."""
  if not parameterization.bottomless and log_snr == -np.inf:
    raise ValueError("where nothing is left of the image, its noise tells nothing about it: start above -inf")


def _copied(variables):
  """A copy, since the loop donates the state and no buffer may be in it twice."""
  return jax.tree.map(jnp.array, variables)


# Both in one run.


class Stages(NamedTuple):
  """The states of the teacher's model and of the student's, and steps taken."""

  first: Any
  second: Any
  steps: jax.Array  # int32 []


def after(first: GenerativeModel, second: Callable, *, first_steps: int) -> GenerativeModel:
  """One run of two stages: a teacher learns, and then its student; `evaluate` reports the "denoising" of the stage.

  Until the student has taken a step, samples are the teacher's.

  Args:
    first: the teacher's model, whose state has an `average`.
    second: the teacher's variables -> the student's model, as `lambda teacher: progressive(module, teacher, ...)`.
    first_steps: steps of the first stage; all that follow are of the second.
  """
  of = lambda state: second(state.first.average.variables)
  students = lambda state: state.steps > first_steps  # whether there is a student

  def init(key, batch):
    first_key, second_key = jax.random.split(key)
    state = Stages(first.init(first_key, batch), None, jnp.zeros((), jnp.int32))
    return state._replace(second=of(state).init(second_key, batch))

  def learn_first(key, state, batch):
    learnt, metrics = first.step(key, state.first, batch)
    return state._replace(first=learnt), metrics["loss"]

  def learn_second(key, state, batch):
    begin_key, step_key = jax.random.split(key)
    begin = lambda: of(state).init(begin_key, batch)
    begun = jax.lax.cond(state.steps == first_steps, begin, lambda: state.second)
    learnt, metrics = of(state).step(step_key, begun, batch)
    return state._replace(second=learnt), metrics["loss"]

  def step(key, state, batch):
    second_stage = state.steps >= first_steps
    state, loss = jax.lax.cond(second_stage, learn_second, learn_first, key, state, batch)
    return state._replace(steps=state.steps + 1), {"loss": loss, "stage": 1.0 + second_stage}

  def sample(key, state, num, condition=None):
    draws = lambda: of(state).sample(key, state.second, num, condition), lambda: first.sample(key, state.first, num, condition)
    return jax.lax.cond(students(state), *draws)

  def evaluate(key, state, batch):
    student = lambda: of(state).evaluate(key, state.second, batch)["denoising"]
    return {"denoising": jax.lax.cond(students(state), student, lambda: first.evaluate(key, state.first, batch)["denoising"])}

  return GenerativeModel(init, step, sample, evaluate)
