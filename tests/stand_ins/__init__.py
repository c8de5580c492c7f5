"""Experiments for the tests of the command line, beside the real ones: `add()` makes `gm-jax` know them."""

import os
import pathlib
import subprocess
import sys

import experiments
from gm_jax.cli import main
from tests.drivers.process import xla_flags

HERE = pathlib.Path(__file__).parent


def add() -> None:
  if str(HERE) not in experiments.__path__:
    experiments.__path__.append(str(HERE))


def printed(capfd, *arguments) -> str:
  """What `gm-jax ARGUMENTS` prints, in this process; it succeeds and says nothing on standard error."""
  capfd.readouterr()
  assert main([*arguments]) == 0
  out, err = capfd.readouterr()
  assert not err
  return out


def environment(devices: int = 1) -> dict:
  root = str(HERE.parents[1])
  return {**os.environ, "PYTHONPATH": root, "XLA_FLAGS": xla_flags(devices)}


def gm_jax(*arguments, **options) -> subprocess.Popen:
  """`gm-jax` as a process of its own, which knows the stand-ins too."""
  code = "import sys; from tests import stand_ins; stand_ins.add(); from gm_jax.cli import main; sys.exit(main())"
  command = [sys.executable, "-c", code, *map(str, arguments)]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
