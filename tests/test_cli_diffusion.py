"""`gm-jax solvers` and `gm-jax likelihood` as a user sees them, on a run whose denoiser is exact."""

import json

import numpy as np
import pytest

from gm_jax.cli import main
from gm_jax.tasks import solving
from tests import stand_ins
from tests.score import gaussian
from tests.stand_ins import normal_points, printed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  stand_ins.add()
  place = tmp_path_factory.mktemp("trained")
  for name in ("normal_points", "coins"):
    assert main(["train", name, "--run", str(place / name)]) == 0
  return place


def test_likelihood_is_that_of_the_law(place, capfd):
  """The flow's density is the normal one's; the bound is above it by little, since the range of noise is wide."""
  command = "likelihood", "normal_points", "--num", "200", "--steps", "48", "--probes", "2", "--levels", "128"
  report = json.loads(printed(capfd, *command, "--json"))
  points = normal_points.data(None)["test"].arrays
  truth = -points["true_log_prob"][:200].astype(np.float64).mean()
  found = {name: score["mean"] for name, score in report["metrics"].items()}
  assert report["metrics"]["nll"]["count"] == 200
  # Every probe tells the trace exactly, since the Jacobian is diagonal.
  assert abs(found["nll"] - truth) < 2e-3
  assert found["nll_error"] < 5e-3
  bound = report["metrics"]["nll_bound"]
  assert abs(bound["mean"] - truth) < 4 * bound["stderr"] + 0.01
  asked = {"experiment": "normal_points", "steps": 48, "levels": 128, "probes": 2, "seed": 0}
  assert asked.items() <= report["protocol"].items()
  assert f"{found['nll']:.6g}" in printed(capfd, *command)


def test_solvers_table_falls_and_is_in_order(place, capfd):
  command = "solvers", "normal_points", "--num", "100", "--evaluations", "1", "9", "36"
  report = json.loads(printed(capfd, *command, "--json"))
  assert report["evaluations"] == [1, 9, 36]
  found, typical = report["distances"], report["median_distances"]
  assert all(typical[name][2] < min(typical[name][:2]) for name in found)
  assert found["Heun"][0] == pytest.approx(found["Euler (DDIM)"][0], rel=1e-5)  # one step to the image is Euler's
  for name, (one, some, many) in found.items():
    assert min(one, some) > many, name
  of_higher_order = ("DPM++ 2M", "DPM++ 3M", "UniPC 2", "UniPC 3", "iPNDM 4")
  assert max(found[name][2] for name in of_higher_order) < found["Euler (DDIM)"][2] / 2
  table = printed(capfd, *command)
  for distances in (found, typical):
    assert [line.split("  ")[0] for line in table.splitlines() if line.endswith(f"{distances['Heun'][2]:.4f}")] == ["Heun"]


def test_solvers_table_is_what_each_solver_makes_of_standard_normal_noise(place, capfd):
  """The exact guess is affine, so each solver ends at gain x + offset of its start x: for N(0, 1) the numbers follow."""
  budgets, num = [1, 4, 9], 2000
  command = "solvers", "normal_points", "--num", str(num), "--evaluations", *map(str, budgets), "--json"
  found = json.loads(printed(capfd, *command))["distances"]
  denoisers = [gaussian.denoiser(mean, normal_points.STD) for mean in normal_points.MEAN]

  def ends(method):
    """Gain, and the offset of each coordinate."""
    zero, one = ([gaussian.follow(denoise, method, x) for denoise in denoisers] for x in (0.0, 1.0))
    return one[0] - zero[0], np.array(zero)

  gain, offset = ends(solving.REFERENCE(normal_points.grid(400)))
  assert gain == pytest.approx(normal_points.STD * np.sqrt((1 + 80**2) / (normal_points.STD**2 + 80**2)), rel=1e-3)
  for name, solver in solving.DETERMINISTIC.items():
    for budget, distance in zip(budgets, found[name]):
      other_gain, other_offset = ends(solving.within(solver, normal_points.grid, budget))
      expected = np.sqrt((other_gain - gain) ** 2 + np.square(other_offset - offset).mean())
      assert distance == pytest.approx(expected, rel=4.5 / np.sqrt(2 * 2 * num), abs=1e-4), (name, budget)


REFUSED = {  # command: what the one line says
  "solvers coins": "has no denoiser",
  "likelihood coins": "has no denoiser",
  "solvers nowhere": "nowhere",
  "likelihood normal_points --steps 7": "even number",
  "likelihood normal_points --levels 0": "--levels is 0",
  "likelihood normal_points --probes 0": "--probes is 0",
  "likelihood normal_points --split tset": "did you mean test",
  "likelihood normal_points --highest -20": "highest",
  "solvers normal_points --evaluations 5 0": "--evaluations is 0",
  "solvers normal_points --num 0": "--num is 0",
}


@pytest.mark.parametrize("command", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(place, capfd, command):
  before = sorted(place.rglob("*"))
  capfd.readouterr()
  assert main(command.split()) == 2
  out, err = capfd.readouterr()
  assert not out
  assert err.count("\n") == 1
  assert REFUSED[command] in err
  assert sorted(place.rglob("*")) == before
