"""One module per result: its configuration, its data, its model, and a header that promises what the run will cost and give.

The header is the module's docstring: one line that says what it is, then `Family:`, `Command:`, `Hardware:`, `Minutes:` and
`Expected:` lines.  `headers` reads it from the syntax tree, so that listing the experiments imports none of them.
"""

import ast
import difflib
import importlib
import pathlib
from types import ModuleType
from typing import NamedTuple

from gm_jax.errors import UserError

UNMEASURED = "not measured yet"  # what a header says until it is


class Header(NamedTuple):
  name: str
  summary: str  # the first line of the docstring
  family: str = ""  # the folder of gm_jax that its model lives in
  command: str = ""
  hardware: str = ""
  minutes: str = ""
  expected: str = ""

  @property
  def promise(self) -> str:
    """What the run costs and gives, as measured; empty before that."""
    measured = UNMEASURED not in (self.minutes, self.expected)
    parts = (self.minutes and f"{self.minutes} min on {self.hardware}", self.expected) if measured else ()
    return "; ".join(filter(None, parts))


def headers() -> list[Header]:
  """Every experiment's promise, by name."""
  return [_read_header(name, tree) for name, tree in sorted(_trees().items())]


def load(name: str) -> ModuleType:
  """The module of one experiment.  Only a name that `headers` lists is ever imported."""
  known = _trees()
  if name not in known:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(known))}"
    raise UserError(f"unknown experiment {name!r}; {hint}")
  return importlib.import_module(f"{__name__}.{name}")


def _trees() -> dict[str, ast.Module]:
  """The experiments here, by name, unimported: the modules that define a Config."""
  paths = [path for folder in __path__ for path in pathlib.Path(folder).glob("*.py")]
  trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
  defines_config = lambda tree: any(isinstance(node, ast.ClassDef) and node.name == "Config" for node in tree.body)
  return {name: tree for name, tree in trees.items() if defines_config(tree)}


def _read_header(name: str, tree: ast.Module) -> Header:
  lines = (ast.get_docstring(tree) or "").splitlines()
  fields = {}
  for line in lines[1:]:
    label, colon, text = line.partition(":")
    if colon and label.lower() in Header._fields[2:]:
      fields[label.lower()] = text.strip()
  return Header(name, lines[0] if lines else "", **fields)
