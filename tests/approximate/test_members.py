"""Every model of the family keeps every promise of the interface, and learns on eight devices what it learns on one."""

from tests import models, promises

test_contract, test_learns, test_strategies_agree = promises.tests_of(models.APPROXIMATE)
