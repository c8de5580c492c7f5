"""GANs of points and what is told of them: every row of the table plays, seeds are counted one by one, what is done is kept."""

import dataclasses
import json
import math

import chex
import jax
import numpy as np
import pytest

from experiments import gan_modes, gan_table
from gm_jax import evaluation, runs
from gm_jax.cli import main, opened, tables, training
from gm_jax.errors import NonFiniteError, UserError
from gm_jax.metrics import modes

TINY = dict(num_seeds=2, batch_size=16, steps=10, width=4, octaves=2, num_points=64, num_drawn=50)
SMALL = ["--num-seeds", "2", "--batch-size", "16", "--steps", "2", "--width", "4", "--num-points", "64", "--num-drawn", "50"]


# What is counted.


@pytest.mark.parametrize("law", gan_modes.LAWS.values(), ids=gan_modes.LAWS)
def test_the_centres_are_those_of_the_law(law):
  found = modes.of_points(law.toy.dataset(20_000, seed=1).arrays["image"], law.centres, law.std)
  assert found.covered == len(law.centres)
  good = 1 - math.exp(-4.5)
  assert abs(found.high_quality - good) < 4 * math.sqrt(good * (1 - good) / 20_000)
  degrees = len(law.centres) - 1  # 2 N KL is chi-squared
  assert abs(2 * 20_000 * found.reverse_kl - degrees) < 4 * math.sqrt(2 * degrees)


def seeds_by_hand():
  """Four seeds on the ring: all modes, half of them, one with half of its samples far away, and nothing near any."""
  law = gan_modes.LAWS["ring"]
  one = np.concatenate([np.repeat(law.centres[:1], 5, 0), np.zeros((5, 2))])
  return [modes.of_points(points, law.centres, law.std) for points in (law.centres, law.centres[::2], one, np.zeros((3, 2)))]


def test_seeds_are_counted_one_by_one():
  found = modes.over_runs(seeds_by_hand())
  np.testing.assert_array_equal(found["modes"], [8, 4, 1, 0])
  np.testing.assert_array_equal(found["high_quality"], [1, 1, 0.5, 0])
  np.testing.assert_allclose(found["reverse_kl"], [0, math.log(2), math.log(8), math.log(8)], atol=1e-12)
  np.testing.assert_array_equal(found["collapsed"], [0, 1, 1, 1])


def test_what_is_told_of_seeds_by_hand():
  found = modes.over_runs(seeds_by_hand())
  row = gan_table.scored(found)
  assert row["collapse_rate"] == 0.75
  deviation = math.sqrt(((8 - 3.25) ** 2 + (4 - 3.25) ** 2 + (1 - 3.25) ** 2 + 3.25**2) / 3)
  assert row["modes"] == pytest.approx([3.25, deviation])
  assert row["seeds"]["modes"] == [8, 4, 1, 0]
  score = evaluation.over_models("modes", found["modes"])
  assert score == {"mean": 3.25, "std": pytest.approx(deviation), "unit": "1", "count": 4}
  assert evaluation.over_models("modes", found["modes"][:1])["std"] == 0
  shown = tables.metrics({"metrics": {"modes": score}, "protocol": {}})
  assert f"modes                    3.25  (standard deviation {deviation:.4g} over 4 models)" in shown


@pytest.mark.parametrize(
  ("changed", "reached"),
  [
    ({}, True),
    ({"modes": [24.7, 0.1]}, False),
    ({"modes": [24.9, 0.3]}, False),
    ({"high_quality": [0.949, 0.0]}, False),
    ({"reverse_kl": [0.041, 0.0]}, False),
    ({"failed": "step 3: loss is nan"}, False),
  ],
)
def test_the_bar(changed, reached):
  row = {"modes": [24.9, 0.2], "high_quality": [0.95, 0.1], "reverse_kl": [0.04, 0.01], **changed}
  assert gan_table.reaches(row, 25) is reached


# How they are trained.


@pytest.mark.parametrize("row", gan_table.ROWS)
def test_both_players_of_every_row_move(row):
  config = gan_table.config_of(row, **TINY)
  one = gan_modes.one(config)
  batch = {"image": gan_modes.data(config)["train"].arrays["image"][:8]}
  with jax.disable_jit():  # each operation is compiled once for all rows, where each row would be a program of its own
    start = state = one.init(jax.random.key(0), batch)
    for turn in range(config.n_critic):
      state, metrics = one.step(jax.random.key(turn), state, batch)
  for player in ("critic", "generator"):
    before, after = (jax.tree.leaves(getattr(at, player).params) for at in (start, state))
    farthest = max(float(np.abs(a - b).max()) for a, b in zip(before, after))
    assert 1e-5 < farthest < 2, player
  assert all(np.isfinite(value) for value in metrics.values())


def test_the_rates_fall_to_nothing_for_both_players_however_often_they_play():
  config = gan_modes.Config(**TINY | {"steps": 4}, n_critic=2)
  model, batch = gan_modes.model(config), {"image": gan_modes.data(config)["train"].arrays["image"][:16]}
  state, step = jax.jit(model.init)(jax.random.key(0), batch), jax.jit(model.step)
  for index in range(4):
    state, _ = step(jax.random.key(index), state, batch)
  once_more = state
  for index in range(2):
    once_more, _ = step(jax.random.key(index), once_more, batch)
  for player in ("critic", "generator"):
    chex.assert_trees_all_equal(getattr(state, player).params, getattr(once_more, player).params)


@pytest.mark.parametrize(
  ("row", "said"),
  [
    ("hinges", "unknown game 'hinges' in row 'hinges'; did you mean hinge?"),
    ("hinge+packing_3", "unknown remedy 'packing_3'.*did you mean packing_4 or packing_2"),
  ],
)
def test_an_unknown_row_is_told_in_one_line(row, said, capsys, tmp_path):
  with pytest.raises(UserError, match=said):
    gan_table.config_of(row)
  assert gan_table.main(["--rows", "minimax", row, "--runs", str(tmp_path / "new")]) == 2
  out, err = capsys.readouterr()
  assert (out, err.count("\n"), (tmp_path / "new").exists()) == ("", 1, False), "nothing is trained before all are known"


def test_a_batch_is_for_all_seeds():
  with pytest.raises(UserError, match="--batch-size 15 cannot be dealt out to 2 seeds in packs of 1; take a multiple of 2"):
    gan_modes.Config(num_seeds=2, batch_size=15)
  with pytest.raises(UserError, match="take a multiple of 16"):
    gan_modes.Config(num_seeds=2, batch_size=24, remedies=("packing_4", "packing_2"))


# From the command line.


def test_train_evaluate_sample_and_picture(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main(["train", "gan_modes", "--run", "run", "--remedies", "packing_2", "r1", "--strategy", "single", *SMALL]) == 0
  last = capsys.readouterr().out.splitlines()[-1]
  assert last.startswith("2 models, mean +- standard deviation: modes ")
  assert (tmp_path / "run/pictures/seeds.png").is_file()

  run = opened.open_run(tmp_path / "run")
  assert run.config.remedies == ("packing_2", "r1")
  from gm_jax import parallel

  _, state = opened.restore(run, gan_modes.model(run.config), parallel.single())
  drawn = gan_modes.draw(run.config, state, 0, 50)
  law = gan_modes.LAWS["grid"]
  each = modes.over_runs([modes.of_points(points, law.centres, law.std) for points in drawn])
  assert (drawn[0] != drawn[1]).any()

  assert main(["evaluate", "run", "--json"]) == 0
  metrics = json.loads(capsys.readouterr().out)["metrics"]
  assert {"critic", *each} == set(metrics)
  for name, values in each.items():
    unit = "nats" if name == "reverse_kl" else "1"
    assert metrics[name] == {"mean": values.mean(), "std": pytest.approx(values.std(ddof=1)), "unit": unit, "count": 2}, name
  assert main(["sample", "run", "--num", "7", "--out", "drawn.npy"]) == 0
  np.testing.assert_allclose(np.load("drawn.npy"), drawn[0, :7], rtol=1e-4, atol=1e-5)


# The table.


def test_a_table_is_finished_by_the_same_command(tmp_path, monkeypatch):
  rows, options = ["non_saturating", "hinge+r1"], dict(TINY, steps=1, strategy="single")
  first = gan_table.fill(rows[:1], tmp_path, **options)
  assert json.loads((tmp_path / "table.json").read_text()) == first
  trained, real = [], training.train_experiment

  def counted(name, module, config, directory):
    trained.append(directory.name)
    return real(name, module, config, directory)

  monkeypatch.setattr(training, "train_experiment", counted)
  record = gan_table.fill(rows, tmp_path, **options)
  assert trained == ["hinge+r1"]
  assert record["rows"]["non_saturating"] == first["rows"]["non_saturating"]
  assert gan_table.fill(rows, tmp_path, **options) == record
  assert trained == ["hinge+r1"]

  # What stands there are the scores of the run that is kept, seed by seed; the law's own samples are beside it.
  config, row = gan_table.config_of("hinge+r1", **options), record["rows"]["hinge+r1"]
  from gm_jax import parallel

  _, state = opened.restore(opened.open_run(tmp_path / "hinge+r1"), gan_modes.model(config), parallel.single())
  assert row["seeds"]["high_quality"] == gan_modes.over_models(config, state, 0)["high_quality"].tolist()
  assert row["seconds"] > 0
  assert record["rows"][gan_table.DATA]["high_quality"][0] > 0.9
  lines = gan_table.table(record, rows).splitlines()
  assert [line.split("  ")[0] for line in lines] == ["row", "the law itself", *rows]

  with pytest.raises(UserError, match="was begun with other options"):
    gan_table.fill(rows, tmp_path, **{**options, "width": 5})


def test_a_row_that_blows_up_is_a_row(tmp_path, monkeypatch, capsys):
  def fail(*_):
    raise NonFiniteError("step 3: loss is nan")

  monkeypatch.setattr(training, "train_experiment", fail)
  record = gan_table.fill(["wgan"], tmp_path, **TINY)
  assert record["rows"]["wgan"]["failed"] == "step 3: loss is nan"
  assert "wgan" in capsys.readouterr().err
  assert gan_table.table(record, ["wgan"]).splitlines()[-1].split() == ["wgan", "not", "finite"]
  assert dataclasses.asdict(gan_table.config_of("wgan"))["n_critic"] == 5
  assert not runs.is_run(tmp_path / "wgan")


def test_rows_are_the_same_side_by_side(tmp_path):
  rows, options = ["non_saturating", "hinge"], dict(TINY, steps=2, strategy="single")
  one, two = (gan_table.fill(rows, tmp_path / str(jobs), jobs, **options) for jobs in (1, 2))
  scores = lambda record: {name: {**row, "seconds": None} for name, row in record["rows"].items()}
  assert scores(one) == scores(two) == scores(json.loads((tmp_path / "2" / "table.json").read_text()))
  assert "gan_modes" in (tmp_path / "2" / "hinge.log").read_text()


@pytest.mark.parametrize("options", [["--jobs", "0"], ["--jobs", "2", "--cpu-devices", "2"]])
def test_jobs_that_cannot_be_are_told(options, tmp_path, capsys):
  assert gan_table.main([*options, "--runs", str(tmp_path)]) == 2
  assert options[1] in capsys.readouterr().err
  assert not any(tmp_path.iterdir())
