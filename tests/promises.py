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
    testing.check_contract(model(name), members[name].batch(0), members[name].reports)

  @pytest.mark.parametrize("name", sorted(name for name in members if members[name].learns_in))
  def test_learns(name):
    member = members[name]
    testing.check_learns(model(name), member.batch(0), member.reports, member.learns_in)

  @pytest.mark.parametrize("name", sorted(members))
  def test_strategies_agree(name):
    """The same state after 5 steps: one device, eight by sharded jit with and without sharded parameters, eight by pmap."""
    assert jax.device_count() == 8
    strategies = [parallel.single(), parallel.dp(), parallel.fsdp(min_bytes=0), parallel.pmap()]
    testing.check_strategies_agree(model(name), [members[name].batch(step) for step in range(5)], strategies)

  return test_contract, test_learns, test_strategies_agree
