"""Every model keeps every promise of the interface.  A new member is one line of `tests/models.py`."""

import pytest

from gm_jax import testing
from tests import models

NAMES = sorted(models.MEMBERS)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
  member = models.MEMBERS[name]
  testing.check_contract(member.make(), member.batch(0), member.reports)


@pytest.mark.parametrize("name", [name for name in NAMES if models.MEMBERS[name].learns_in])
def test_learns(name):
  member = models.MEMBERS[name]
  testing.check_learns(member.make(), member.batch(0), member.reports, member.learns_in)
