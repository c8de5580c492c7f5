"""Solvers by name, for tests that hold of all of them or of one kind."""

import pytest

from gm_jax.score.langevin import AnnealedLangevin, EulerMaruyama
from gm_jax.score.multistep import IPNDM, DPMpp, DPMpp2S, UniPC
from gm_jax.score.solvers import DDIM, Ancestral, Heun

FLOWS = {
  "DDIM": DDIM(),
  "Heun": Heun(),
  "DPM++ 1": DPMpp(1),
  "DPM++ 2M": DPMpp(2),
  "DPM++ 3M": DPMpp(3),
  "DPM++ 2S": DPMpp2S(),
  "UniP 2, bh1": UniPC(2, corrector=False, variant="bh1"),
  "UniPC 1": UniPC(1),
  "UniPC 2": UniPC(2),
  "UniPC 2, bh1": UniPC(2, variant="bh1"),
  "UniPC 3": UniPC(3),
  **{f"iPNDM {order}": IPNDM(order) for order in (1, 2, 3, 4)},
}
RIGHT_FOR_A_POINT = {
  "DDIM 0.3": DDIM(0.3),
  "DDIM 1": DDIM(1.0),
  "small": Ancestral(),
  "optimal, a point": Ancestral("optimal", 0.0),
  "churned": Heun(churn=3.0),
  "SDE 1": DPMpp(1, sde=True),
  "SDE 2": DPMpp(2, sde=True),
  "SDE 3": DPMpp(3, sde=True),
}
OTHERS = {
  "large": Ancestral("large"),
  "optimal": Ancestral("optimal", 0.36),
  "Euler-Maruyama": EulerMaruyama(),
  "Langevin": AnnealedLangevin(5, 0.5),
}
SOLVERS = FLOWS | RIGHT_FOR_A_POINT | OTHERS
NEED_SOME_IMAGE = {name: SOLVERS[name] for name in ("Heun", "churned", "Euler-Maruyama", "Langevin")}  # none starts at -inf


def each(members, name="solver"):
  return pytest.mark.parametrize(name, members.values(), ids=members.keys())
