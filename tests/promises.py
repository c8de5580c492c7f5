"""The promises that every model makes, as tests.  A new member is one line of `tests/models.py`."""

import jax
import pytest

from gm_jax import parallel, testing


def tests_of(members: dict) -> tuple:
  """(test_contract, test_learns, test_strategies_agree) of members by name, for a file that pytest collects."""
  models = {}

  def model(name: str):
    """Made once, so that its programs are compiled once."""
    return models.setdefault(name, members[name].make())

  @pytest.mark.parametrize("name", sorted(members))
  def test_contract(name):
    member = members[name]
    testing.check_contract(model(name), member.batch(0), member.reports, tolerance=member.tolerance)

  @pytest.mark.parametrize("name", sorted(name for name in members if members[name].learns_in))
  def test_learns(name):
    member = members[name]
    testing.check_learns(model(name), member.batch(0), member.reports, member.learns_in)

  @pytest.mark.parametrize("name", sorted(members))
  def test_strategies_agree(name):
    """The same state after 5 steps on one device and on eight, each of which runs the program on its own part of the batch.

    Where one program is cut by XLA (`dp`, `fsdp`) less can go wrong: tests/test_parallel.py asks a few.
    """
    assert jax.device_count() == 8
    strategies = [parallel.single(), parallel.pmap()]
    testing.check_strategies_agree(model(name), [members[name].batch(step) for step in range(5)], strategies)

  return test_contract, test_learns, test_strategies_agree
