"""A checkpoint is whole or not there, damage is never silent, and it opens on any devices under any strategy, bit for bit."""

import os
import random
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import checkpoint, parallel
from gm_jax.core import Trainable
from gm_jax.errors import CheckpointError, NonFiniteError, UserError


def make_state(seed=0):
  """Every kind of leaf that a model may hold: matrices, scalars, counters, bfloat16, a codebook, an empty array, infinity."""
  draw = np.random.default_rng(seed)
  params = {"Dense_0": {"kernel": draw.normal(size=(16, 24)).astype(np.float32), "bias": np.zeros(24, np.float32)}}
  stats = {"codes": {"used": draw.integers(0, 9, 8).astype(np.int32), "half": jnp.asarray(draw.normal(size=8), jnp.bfloat16)}}
  return Trainable(params, stats, (np.int32(seed), np.float32(np.inf), np.zeros((0, 3), np.float32)))


def placed(state, strategy):
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, state))
  return jax.tree.map(jax.device_put, state, strategy.shardings(shapes))


def abstract(state, strategy):
  describe = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
  return jax.tree.map(describe, placed(state, strategy))


def on_devices(name, num):
  """The strategy of that name over the first `num` devices."""
  mesh = parallel._mesh(1, num) if name == "fsdp" else parallel._mesh(num, 1)
  return parallel._sharded(name, mesh, parallel._largest_axis(num, 0 if name == "fsdp" else float("inf")))


def equal(left, right):
  same = lambda a, b: a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
  return jax.tree.structure(left) == jax.tree.structure(right) and all(map(same, jax.tree.leaves(left), jax.tree.leaves(right)))


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
  """A directory with the checkpoints of steps 10 and 20."""
  directory = tmp_path_factory.mktemp("checkpoints")
  for step in (10, 20):
    checkpoint.save(directory, step, make_state(step), extra={"seed": step})
  return directory


def with_leaf(state, name, leaf):
  return state._replace(params={"Dense_0": {**state.params["Dense_0"], name: leaf}})


def files_of(path):
  return sorted(file for file in path.rglob("*") if file.is_file())


def test_what_is_saved_comes_back(two_steps):
  step, state = checkpoint.restore(two_steps, make_state())
  assert step == 20
  assert equal(state, make_state(20))
  assert equal(checkpoint.restore(two_steps, make_state(), step=10)[1], make_state(10))
  assert checkpoint.read_extra(two_steps, 10) == {"seed": 10}
  assert checkpoint.steps(two_steps) == [10, 20]
  assert checkpoint.verify(two_steps) == []


def damaged_silently(directory, name):
  """Whether a damaged file of step 20 goes unnoticed: nobody is told of it, or step 20 is restored all the same."""
  told = []
  step, state = checkpoint.restore(directory, make_state(), notify=told.append)
  assert step == 20 or equal(state, make_state(10))
  return step == 20 or len(told) != 1 or name not in told[0] or "00000020" not in told[0]


def test_no_flipped_bit_is_silent(two_steps, tmp_path):
  """Three hundred flips spread over every file, each noticed, named, and passed over for the checkpoint before."""
  shutil.copytree(two_steps, tmp_path / "copy")
  files = [file for file in files_of(tmp_path / "copy" / "00000020") if file.stat().st_size]
  chance = random.Random(0)
  for flip in range(300):
    file = files[flip % len(files)]
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    intact = file.read_bytes()
    file.write_bytes(content)
    # Looking at the hashes alone, 300 times; restoring as well, once per file.
    assert checkpoint.problems(tmp_path / "copy" / "00000020"), file
    if flip < len(files):
      assert not damaged_silently(tmp_path / "copy", file.name)
    file.write_bytes(intact)
  assert not checkpoint.problems(tmp_path / "copy" / "00000020")


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "longer"])
def test_no_damaged_file_is_silent(two_steps, tmp_path, damage):
  shutil.copytree(two_steps, tmp_path / "copy")
  for file in files_of(tmp_path / "copy" / "00000020"):
    intact = file.read_bytes()
    if damage == "missing":
      file.unlink()
    elif damage == "longer":
      file.write_bytes(intact + b" ")
    elif intact:
      file.write_bytes(intact[: len(intact) // 2 if damage == "half" else 0])
    else:
      continue
    assert not damaged_silently(tmp_path / "copy", file.name), file
    assert any(file.name in line for line in checkpoint.verify(tmp_path / "copy"))
    file.write_bytes(intact)


def test_when_all_are_damaged_it_is_an_error_that_names_them(two_steps, tmp_path):
  shutil.copytree(two_steps, tmp_path / "copy")
  for step in ("00000010", "00000020"):
    (tmp_path / "copy" / step / checkpoint.MANIFEST).write_text("{}")
  with pytest.raises(CheckpointError, match=r"no checkpoint .* is whole.*checkpoint 10: MANIFEST.json.*checkpoint 20"):
    checkpoint.restore(tmp_path / "copy", make_state(), notify=lambda line: None)
  with pytest.raises(CheckpointError, match="no checkpoint in"):
    checkpoint.restore(tmp_path / "nothing", make_state())
  with pytest.raises(CheckpointError, match=r"no checkpoint of step 30 in .* it has steps \[10, 20\]"):
    checkpoint.restore(two_steps, make_state(), step=30)


def test_a_directory_swapped_for_another_step_is_damage(two_steps, tmp_path):
  shutil.copytree(two_steps / "00000010", tmp_path / "00000030")
  assert checkpoint.verify(tmp_path) == ["checkpoint 30: MANIFEST.json is of step 10"]


@pytest.mark.parametrize(
  ("change", "named"),
  [
    (lambda state: with_leaf(state, "bias", np.zeros(25, np.float32)), r"bias float32\[25\]"),
    (lambda state: with_leaf(state, "kernel", np.zeros((16, 24), np.float16)), r"kernel float16\[16, 24\]"),
    (lambda state: state._replace(stats={}), r"stats/codes/half .* where this model has opt_state/0"),
    (lambda state: state._replace(opt_state=(*state.opt_state, np.float32(0))), "nothing more where .* opt_state/3"),
    (lambda state: state._replace(opt_state=state.opt_state[:2]), r"opt_state/2 .* where this model has nothing more"),
    (lambda state: state._replace(params={"Dense_1": state.params["Dense_0"]}), r"where this model has params/Dense_1/bias"),
  ],
  ids=["shape", "dtype", "missing", "more", "fewer", "renamed"],
)
def test_a_state_of_another_model_is_refused_by_its_first_leaf(two_steps, change, named):
  with pytest.raises(UserError, match=named):
    checkpoint.restore(two_steps, change(make_state()))


LAYOUTS = [("dp", 1), ("dp", 2), ("dp", 4), ("dp", 8), ("fsdp", 2), ("fsdp", 4), ("fsdp", 8), ("pmap", 8)]


def layout(name, num):
  return parallel.pmap() if name == "pmap" else on_devices(name, num)


@pytest.mark.parametrize("written", LAYOUTS, ids=str)
def test_saved_on_some_devices_it_opens_on_any_others(written, tmp_path):
  state = make_state(3)
  checkpoint.save(tmp_path, 1, placed(state, layout(*written)))
  for read in LAYOUTS:
    strategy = layout(*read)
    _, restored = checkpoint.restore(tmp_path, abstract(state, strategy))
    assert equal(restored, state), read
    shardings = jax.tree.map(lambda leaf: leaf.sharding, restored)
    assert shardings == strategy.shardings(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, state)))


@pytest.mark.parametrize("strategy", ["dp", "fsdp"])
def test_a_nan_is_never_saved(tmp_path, strategy):
  state = make_state()
  state.params["Dense_0"]["kernel"][15, 23] = np.nan
  with pytest.raises(NonFiniteError, match="step 7: params/Dense_0/kernel holds a NaN"):
    checkpoint.save(tmp_path / "new", 7, placed(state, on_devices(strategy, 8)))
  assert not (tmp_path / "new").exists()
  half = make_state()
  half.stats["codes"]["half"] = half.stats["codes"]["half"].at[2].set(jnp.nan)
  with pytest.raises(NonFiniteError, match="stats/codes/half"):
    checkpoint.save(tmp_path / "new", 7, half)


def test_saving_a_step_again_replaces_it(tmp_path):
  checkpoint.save(tmp_path, 1, make_state(1))
  checkpoint.save(tmp_path, 1, make_state(2))
  assert equal(checkpoint.restore(tmp_path, make_state())[1], make_state(2))
  assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_prune_keeps_the_newest_and_drops_what_a_resume_has_passed_over(tmp_path):
  for step in (1, 2, 3, 4, 9):
    (tmp_path / checkpoint._name(step)).mkdir()
  checkpoint.prune(tmp_path, newest=4, keep=2)
  assert checkpoint.steps(tmp_path) == [3, 4]


def test_leftovers_are_cleaned_and_never_read(two_steps, tmp_path):
  shutil.copytree(two_steps, tmp_path / "copy")
  for name in ("tmp-00000030", "trash-00000005"):
    shutil.copytree(two_steps / "00000020", tmp_path / "copy" / name)
  assert checkpoint.steps(tmp_path / "copy") == [10, 20]
  checkpoint.clean(tmp_path / "copy")
  assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["00000010", "00000020"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("not a directory")
  with pytest.raises(CheckpointError, match=r"^cannot write checkpoint .*file/00000001: .*") as caught:
    checkpoint.save(tmp_path / "file", 1, make_state())
  assert "\n" not in str(caught.value)


def test_a_disk_without_room_is_refused_before_it_is_full(tmp_path, monkeypatch):
  checkpoint.save(tmp_path, 1, make_state(1))
  monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
  with pytest.raises(CheckpointError, match="the disk has 0.0 left"):
    checkpoint.save(tmp_path, 2, make_state(2))
  assert checkpoint.steps(tmp_path) == [1]
  assert checkpoint.verify(tmp_path) == []
  assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_directory_is_one_line(tmp_path):
  os.chmod(tmp_path, 0o500)
  with pytest.raises(CheckpointError, match="cannot write"):
    checkpoint.save(tmp_path / "checkpoints", 1, make_state())
  os.chmod(tmp_path, 0o700)


def test_sha256sum_reads_the_seal(two_steps):
  assert subprocess.run(["sha256sum", "-c", checkpoint.SEAL], cwd=two_steps / "00000020", capture_output=True).returncode == 0
