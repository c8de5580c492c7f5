"""The curse of dimensionality against the formulas that the lecture has, and against tables that are really there."""

import json
import math

import pytest

from gm_jax.cli import main
from gm_jax.errors import UserError
from gm_jax.tasks import parameters


def test_counts_are_the_formulas():
  rows = parameters.table((28, 28, 1), 2)
  assert rows["full joint"] == 2**784 - 1
  assert rows["Markov chain"] == rows["Chow-Liu tree"] == 2 * 784 - 1
  assert rows["factorised"] == 784
  assert rows["mixture of 10 factorised"] == 10 * 784 + 9
  assert parameters.table((1, 1, 3), 256)["full joint"] == 256**3 - 1
  assert parameters.table((1, 1, 3), 256)["factorised"] == 3 * 255


@pytest.mark.parametrize("levels", [2, 3])
def test_every_independence_leaves_fewer(levels):
  rows = parameters.table((5, 5, 1), levels)
  order = ["full joint", *(f"{k} causal neighbours" for k in (10, 6, 4, 2)), "Markov chain", "factorised"]
  counts = [rows[name] for name in order]
  assert counts == sorted(counts, reverse=True)
  # An inner pixel of ten neighbours has a table of levels^10 contexts.
  assert counts[1] > (levels - 1) * levels**10


def test_what_the_command_prints(capsys):
  assert main(["parameters"]) == 0
  out, _ = capsys.readouterr()
  assert "2^784 - 1, about 10^236.0" in out
  assert "1,567" in out
  assert main(["parameters", "--height", "1", "--width", "1", "--channels", "3", "--levels", "256", "--json"]) == 0
  out, _ = capsys.readouterr()
  assert json.loads(out)["full joint"] == 16_777_215


def test_a_power_is_read_by_its_digits():
  for count in (10**15, 7 * 10**30):
    assert parameters.written("chain", count, (2, 2, 1), 2) == f"about 10^{math.log10(count):.1f}"
  assert parameters.written("chain", 1234567, (2, 2, 1), 2) == "1,234,567"


def test_too_many_variables_are_refused():
  with pytest.raises(UserError, match="1000 x 1000 x 1"):
    parameters.table((1000, 1000, 1), 2)
