"""README.md does what it says."""

import ast
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_script_without_the_command_line_runs_and_is_short(tmp_path):
  script = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
  assert len(script.splitlines()) <= 20
  assert script.count("steps = 2000") == 1
  shortened = script.replace("steps = 2000", "steps = 3")
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  subprocess.run([sys.executable, "-c", shortened], cwd=tmp_path, env=environment, check=True, timeout=300)
  picture = np.asarray(Image.open(tmp_path / "digits.png"))
  assert picture.shape == (8 * 9 + 1, 8 * 9 + 1)
  assert len(np.unique(picture)) > 10


def test_what_links_lead_to_is_there():
  for target in re.findall(r"\]\(([^)#]+)\)", README):
    assert (ROOT / target).exists(), target


def test_generated_parts_are_up_to_date():
  run = subprocess.run([sys.executable, ROOT / "benchmarks/readme.py", "--check"], capture_output=True, text=True)
  assert run.returncode == 0, run.stdout + run.stderr


COMMANDS = [shlex.split(line.split("  ")[0]) for line in re.findall(r"^    (gm-jax .*)$", README, re.MULTILINE)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_that_it_shows_exists(command, capsys):
  from gm_jax.cli import main

  assert main([command[1], "--help"]) == 0
  if command[1] == "train":
    assert main([*command[1:3], "--help"]) == 0  # the experiment's own
  offered = capsys.readouterr().out
  for option in command:
    assert not option.startswith("--") or option in offered, option


def test_names_in_the_text_exist():
  # `gm_jax` names in the prose: module.name, as one would type them after `from gm_jax import module`.
  for module, name in re.findall(r"`(?:\w+\.)?(core|data|evaluation|hooks|testing)\.(\w+)", README):
    source = ROOT / "gm_jax" / f"{module}.py"
    tree = ast.parse((source if source.exists() else ROOT / "gm_jax" / module / "__init__.py").read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert name in names, f"{module}.{name}"
