"""Who may know whom, read off the syntax trees; and what is never called anywhere."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FAMILIES = ("tractable", "approximate", "implicit", "score", "reconstruction")
ARITHMETIC = {"core", "random", "images", "distributions", "networks"}

# Part of gm_jax -> the other parts that it may import, besides `errors`.  A part is a module or a folder; each has a line here.
MAY_IMPORT = {
  "__init__": set(),
  "errors": set(),
  "rows": set(),
  "memory": set(),
  "random": {"rows"},
  "images": {"random"},
  "distributions": set(),
  "information": set(),
  "markov_chain": {"random", "rows"},
  "core": {"rows"},
  "networks": {"errors", "random", "rows"},
  **{family: ARITHMETIC for family in FAMILIES},
  "approximate": ARITHMETIC | {"score"},  # the variational diffusion model is both
  "tasks": ARITHMETIC | {"metrics", *FAMILIES},
  "data": set(),
  "metrics": {"core", "data", "images", "information", "networks", "random"},
  "parallel": {"random", "rows"},
  "sampling": {"core", "parallel", "random", "rows"},
  "checkpoint": set(),
  "runs": set(),
  "hooks": {"images", "runs", "sampling"},
  "progress": {"hooks"},
  "two_stage": ARITHMETIC | {"approximate", "tractable"},
  "train": {"checkpoint", "core", "hooks", "parallel", "rows", "runs"},
  "evaluation": {"data", "images", "parallel", "random", "rows"},
  "testing": {"core", "rows"},
  "cli": None,  # anything, and the experiments
}
EXPERIMENTS_ARE_FOR = {"cli"}

# Modules that take their time to import, and where they may be imported at all (they are imported there when they are needed).
HEAVY = {
  "orbax": {"checkpoint"},
  "tyro": {"cli"},
  "grain": {"data"},
  "tensorflow_datasets": {"data"},
  "PIL": {"data", "hooks", "tasks"},
  "constriction": {"tasks"},
}

NEVER_IMPORTED = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "torch", "tensorflow"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "yaml.load", "yaml.unsafe_load", "torch.load", "os.system"}

SOURCES = sorted(path for folder in ("gm_jax", "experiments") for path in (ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST):
  """Every module that the tree imports, at its top or inside a function: pairs (node, dotted name)."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((node, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      # `from gm_jax import rows` imports gm_jax.rows; `from gm_jax.core import State` imports gm_jax.core.
      yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def part_of(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / "gm_jax").parts[0].removesuffix(".py")


def tree_of(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.is_relative_to(ROOT / "gm_jax")], ids=shown)
def test_imports_go_downwards(path):
  part = part_of(path)
  assert part in MAY_IMPORT, f"{part} has no line in the table"
  allowed = MAY_IMPORT[part]
  for _, name in imported(tree_of(path)):
    top, _, rest = name.partition(".")
    assert top != "experiments" or part in EXPERIMENTS_ARE_FOR, f"{part} imports {name}"
    if top == "gm_jax" and allowed is not None and rest.partition(".")[0] not in ("__version__", "errors", part):
      assert rest.partition(".")[0] in allowed, f"{part} imports {name}; it may import {sorted(allowed)}"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_heavy_modules_are_imported_where_they_are_needed_and_only_then(path):
  part = part_of(path) if path.is_relative_to(ROOT / "gm_jax") else "experiments"
  tree = tree_of(path)
  at_top = {id(node) for node in tree.body}
  for node, name in imported(tree):
    top = name.partition(".")[0]
    assert part in HEAVY.get(top, {part}), f"{part} imports {name}"
    assert top not in HEAVY or id(node) not in at_top, f"{path.name} imports {name} at its top"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_nothing_that_runs_what_a_file_contains(path):
  tree = tree_of(path)
  for _, name in imported(tree):
    assert name.partition(".")[0] not in NEVER_IMPORTED, f"imports {name}"
  for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
    called = ast.unparse(call.func)
    assert called not in NEVER_CALLED, f"line {call.lineno} calls {called}"
    for keyword in call.keywords:
      unsafe = (keyword.arg, ast.unparse(keyword.value)) in {("allow_pickle", "True"), ("shell", "True")}
      assert not unsafe, f"line {call.lineno} says {keyword.arg}=True"


def loaded_by(statement: str) -> set[str]:
  """Top-level modules in memory after a fresh interpreter has run the statement."""
  code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
  return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_library_is_light():
  modules = ("core", "random", "images", "distributions", "parallel", "sampling", "data", *FAMILIES)
  loaded = loaded_by(f"import gm_jax\nfrom gm_jax import {', '.join(modules)}")
  heavy = {"orbax", "grain", "tensorflow_datasets", "tyro", "rich", "PIL", "array_record", "matplotlib", "tensorboardX"}
  # flax brings rich along; what counts is what we add to jax, flax and optax.
  assert not (loaded - loaded_by("import jax, flax.linen, optax")) & heavy


def test_help_and_list_answer_without_jax():
  quiet = "import gm_jax.cli, contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): gm_jax.cli.main(['list'])"
  loaded = loaded_by(quiet)
  assert not loaded & {"jax", "numpy", "tyro"}
