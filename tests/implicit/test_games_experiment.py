"""Games compared: each is played as recommended, distances are those of the samples, and the table adds up."""

import dataclasses
import json
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cgan_mnist, compare_games, distances, gan_mnist
from gm_jax import data, runs
from gm_jax.cli import main, opened, training
from gm_jax.errors import UserError
from gm_jax.metrics import frechet

SMALL = gan_mnist.Config(
  steps=4, batch_size=8, base=2, num_latents=3, frechet_every=2, frechet_samples=20, strategy="single", num_samples=4, seed=3
)
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 256, (64, 28, 28, 1)).astype(np.uint8)
BATCH = {"image": PICTURES[:8], "label": np.arange(8, dtype=np.int32)}
PROJECTION = RANDOM.normal(size=(784, 5)) / 784


def features(pictures):
  assert pictures.dtype == np.uint8
  return pictures.reshape(len(pictures), -1) @ PROJECTION


JUDGE = distances.Judge(features, frechet.moments(features(PICTURES)))


def moved(before, after) -> float:
  """The farthest that a parameter went."""
  return max(float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)))


def some_state(shapes):
  """A state of these shapes before its first step: random parameters, optimisers and counters at zero."""
  random = np.random.default_rng(1)

  def fill(path, leaf):
    zero = leaf.ndim == 0 or any(getattr(entry, "name", None) == "opt_state" for entry in path)
    return jnp.zeros(leaf.shape, leaf.dtype) if zero else jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, shapes)


# The games.


def test_every_game_that_can_be_asked_for_has_a_recipe():
  assert set(typing.get_args(gan_mnist.Name)) == set(gan_mnist.RECIPES)


@pytest.mark.parametrize("game", gan_mnist.RECIPES)
def test_the_recommended_players_move_as_far_as_their_first_step_goes(game):
  """Adam's first step is the learning rate for whatever has a gradient, and so is RMSProp's without its bias."""
  recipe = gan_mnist.RECIPES[game]
  model = gan_mnist.model(dataclasses.replace(SMALL, game=game))
  step = jax.jit(model.step, compiler_options={"xla_backend_optimization_level": 0})  # compiled in half the time, and run once
  states = [some_state(jax.eval_shape(model.init, jax.random.key(0), BATCH))]
  for turn in range(recipe.n_critic):
    states.append(step(jax.random.key(turn), states[-1], BATCH)[0])
  critic_rate, generator_rate = recipe.rates
  assert moved(states[-2].generator.params, states[-1].generator.params) == pytest.approx(generator_rate, rel=0.01)
  assert moved(states[0].generator.params, states[-2].generator.params) == 0
  if game == "wgan":
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(states[1].critic.params))
    assert largest == pytest.approx(0.05)
  else:
    assert moved(states[0].critic.params, states[1].critic.params) == pytest.approx(critic_rate, rel=0.01)


def test_rates_fall_to_nothing_over_the_second_half():
  rates = [float(gan_mnist.falling(2.0, 10)(step)) for step in range(11)]
  np.testing.assert_allclose(rates, [2] * 6 + [1.6, 1.2, 0.8, 0.4, 0], rtol=1e-6, atol=1e-7)
  assert float(gan_mnist.falling(2.0, 1)(0)) == 2


def test_an_unknown_game_is_answered_in_one_line(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main(["train", "gan_mnist", "--game", "hinges"]) == 2
  out, err = capsys.readouterr()
  assert (out, err.count("\n")) == ("", 1)
  assert "hinges" in err
  assert "non_saturating" in err
  assert compare_games.main(["--games", "wgan", "hinges"]) == 2
  out, err = capsys.readouterr()
  assert (out, err) == ("", "python -m experiments.compare_games: unknown game 'hinges'; did you mean hinge?\n")
  assert not list(tmp_path.iterdir())


# Distances of a run.


@pytest.fixture(scope="module")
def patched():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(distances, "judge_of_mnist", lambda data_dir, run: JUDGE)
    patch.setattr(gan_mnist, "data", lambda config: dict.fromkeys(("train", "test"), data.from_arrays(PICTURES)))
    yield patch


@pytest.fixture(scope="module")
def trained(patched, tmp_path_factory):
  """A place with one run in it, and what its history was when it was stopped half-way."""
  place = tmp_path_factory.mktemp("games")
  directory = place / "non_saturating-3"
  training.train_experiment("gan_mnist", gan_mnist, SMALL, directory)
  half = distances.history(runs.read_metrics(directory))
  training.train_experiment("gan_mnist", gan_mnist, dataclasses.replace(SMALL, steps=6), directory)
  return place, half


def test_the_distance_is_that_of_the_samples_that_are_saved(trained, tmp_path):
  place, _ = trained
  out = tmp_path / "drawn.npy"
  assert main(["sample", str(place / "non_saturating-3"), "--num", "20", "--seed", "3", "--out", str(out)]) == 0
  seen, real = features(np.load(out)), features(PICTURES)
  covariances = np.cov(seen.T) @ np.cov(real.T)
  root = np.sqrt(np.linalg.eigvals(covariances).real.clip(0)).sum()
  exact = np.square(seen.mean(0) - real.mean(0)).sum() + np.trace(np.cov(seen.T)) + np.trace(np.cov(real.T)) - 2 * root
  step, found = distances.history(runs.read_metrics(place / "non_saturating-3"))[-1]
  assert step == 6
  assert found == pytest.approx(exact, rel=1e-3)


def test_a_resumed_run_keeps_its_distances(trained):
  place, half = trained
  whole = distances.history(runs.read_metrics(place / "non_saturating-3"))
  assert [step for step, _ in half] == [2, 4]
  assert [step for step, _ in whole] == [2, 4, 6]
  assert whole[:2] == half
  assert len({distance for _, distance in whole}) == 3


def test_no_distance_no_judge(monkeypatch):
  monkeypatch.setattr(distances, "judge_of_mnist", None)
  assert gan_mnist.hooks(dataclasses.replace(SMALL, frechet_every=0)) == []


# The table.


@pytest.mark.parametrize(
  ("measured", "course"),
  [
    ([(10, 5.0), (20, 3.0), (30, 4.0)], (3.0, 20, 4.0, 30)),
    ([(30, 4.0), (20, 3.0), (10, 5.0)], (3.0, 20, 4.0, 30)),
    ([(10, 5.0), (20, 2.0)], (2.0, 20, 2.0, 20)),
    ([(10, 1.0), (20, 1.0), (30, 9.0)], (1.0, 10, 9.0, 30)),
    ([(7, 6.0)], (6.0, 7, 6.0, 7)),
  ],
)
def test_best_and_last_of_a_history(measured, course):
  assert distances.course(measured) == course
  lines = [{"step": step, "frechet": distance} for step, distance in measured]
  assert distances.history([{"step": 1, "loss": 0.5}, *lines, {"step": 99, "eval": {"critic": 1.0}}]) == measured


def test_a_row_is_the_mean_over_seeds():
  row = compare_games.row([distances.Course(best, 1, last, 9) for best, last in ((2.0, 3.0), (4.0, 4.0), (6.0, 8.0))])
  assert row["best"] == [4.0, 2.0]
  assert row["last"] == pytest.approx([5.0, 7**0.5])
  assert (row["ratio"], row["worst_ratio"]) == (1.25, 1.5)
  assert row["runs"][0] == {"best": 2.0, "best_step": 1, "last": 3.0, "last_step": 9}
  assert compare_games.row([distances.Course(2.0, 1, 3.0, 9)])["last"] == [3.0, 0.0]


def test_the_table_trains_what_is_missing_and_reads_what_is_done(trained, monkeypatch):
  place, _ = trained
  asked, config = [], dataclasses.replace(SMALL, steps=6)
  monkeypatch.setattr(training, "train_experiment", lambda name, module, config, directory: asked.append((config, directory)))
  compare_games.finish(config, place / "non_saturating-3")
  with pytest.raises(UserError, match="other options"):
    compare_games.finish(dataclasses.replace(config, base=3), place / "non_saturating-3")
  assert asked == []
  compare_games.finish(dataclasses.replace(config, steps=7), place / "non_saturating-3")
  compare_games.finish(config, place / "non_saturating-4")
  assert [(one.steps, where.name) for one, where in asked] == [(7, "non_saturating-3"), (6, "non_saturating-4")]


def test_the_record_is_of_the_runs(trained, tmp_path, monkeypatch):
  place, _ = trained
  (tmp_path / "non_saturating-0").symlink_to(place / "non_saturating-3")
  monkeypatch.setattr(compare_games, "_learnt", lambda config: {"steps": config.steps})
  record = json.loads(json.dumps(compare_games.compare(dataclasses.replace(SMALL, steps=6), ["non_saturating"], 1, tmp_path)))
  found = [distance for _, distance in distances.history(runs.read_metrics(place / "non_saturating-3"))]
  row = record["rows"]["non_saturating"]
  assert (row["best"], row["last"]) == ([min(found), 0.0], [found[-1], 0.0])
  seen = features(PICTURES[:20])
  assert record["training_images"] == pytest.approx(frechet.distance(frechet.moments(seen), JUDGE.reference))
  lines = compare_games.table(record).splitlines()
  assert lines[1].split()[:4] == ["non_saturating", f"{min(found):.2f}", "+-", "0.00"]
  assert lines[1].split()[-1] == f"{found[-1] / min(found):.2f}"


# The conditional one.


@pytest.mark.parametrize("critic", cgan_mnist.CRITICS)
def test_a_digit_is_asked_for_by_its_label(critic):
  model = cgan_mnist.model(cgan_mnist.Config(critic=critic, base=2, num_latents=3))
  shapes = jax.eval_shape(model.init, jax.random.key(0), BATCH)
  jax.eval_shape(model.step, jax.random.key(0), shapes, BATCH)
  state, label = some_state(shapes), np.arange(20) % 10
  assert opened.uses_labels(None, model, state)
  if critic == "projection":  # the generator is the same
    draw = jax.jit(model.sample, static_argnums=2)
    all_kinds, threes = (draw(jax.random.key(1), state, 20, wanted) for wanted in (label, np.full(20, 3)))
    np.testing.assert_array_equal((all_kinds == threes).all((1, 2, 3)), label == 3)
