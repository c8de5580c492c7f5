"""From the fields of a dataclass to command-line options, and from any mistake in them to one line."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import re
from typing import NoReturn

from gm_jax.errors import UserError


class Parser(argparse.ArgumentParser):
  """An argparse parser whose every complaint is a UserError of one line that names what would have been accepted."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, allow_abbrev=False, **kwargs)

  def error(self, message: str) -> NoReturn:
    raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

  def reject(self, argument: str) -> NoReturn:
    """Complain about an argument that nothing here takes."""
    raise UserError(f"unknown argument {argument!r}; {alternatives(argument, self._option_string_actions)}")


def alternatives(word: str, known) -> str:
  """The names a user may have meant, or all of them."""
  near = difflib.get_close_matches(word, known, n=3)
  return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"


def check_range(name: str, value: int, least: int, most: int) -> None:
  if not least <= value <= most:
    raise UserError(f"{name} is {value}; take a number from {least} to {most}")


def parse(config_class: type, arguments: list[str], prog: str, default=None):
  """A `config_class` from options, by tyro; fields that are not named there are `default`'s.

  `--help` prints the options and raises SystemExit(0), as it does everywhere.
  """
  import tyro  # a tenth of a second that --help need not wait for

  default = default or config_class()
  printed = io.StringIO()
  try:
    with contextlib.redirect_stderr(printed):
      config, unknown = tyro.cli(config_class, args=arguments, prog=prog, default=default, return_unknown_args=True)
  except SystemExit as stop:
    if not stop.code:
      raise
    raise UserError(f"{_one_line(printed.getvalue())} (see {prog} --help)") from None
  if unknown:
    known = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(config_class)]
    raise UserError(f"unknown option {unknown[0]!r}; {alternatives(unknown[0], known)}")
  return config


def _one_line(panel: str) -> str:
  """tyro's error panel as one line: what was wrong and, where it says so, what was expected."""
  bare = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", panel)
  message, *details = [" ".join(block.split()) for block in re.split(r"─{4,}", bare.partition("\n")[2])]
  message = re.sub(r"^Error parsing ([A-Za-z]\w*: )?", "", message)  # "--steps: ..." stays, "Config: ..." is no use
  expected = re.search(r"Argument helptext: (--\S+ .*?)( \(|$)", " ".join(details))
  return f"{message}; expected {expected[1]}" if expected else message.rstrip(".")
