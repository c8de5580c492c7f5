"""The command line: `gm-jax demo`, `list`, `train`, `sample`, `evaluate`, `classify`, `outliers` and more (`gm-jax --help`).

Nothing heavy is imported before the arguments are known to make sense: `--help` and `list` answer without JAX.  Exit codes:
0 done; 1 a failure that is ours; 2 bad input, told in one line; 130 and 143 stopped by a signal, after saving.
"""

import errno
import os
import sys
from collections.abc import Callable

from gm_jax import memory
from gm_jax.cli.parser import parser
from gm_jax.errors import CheckpointError, NonFiniteError, Stopped, UserError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# What a path given by the user can run into; any other OSError is a failure of ours.
BAD_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def main(arguments: list[str] | None = None) -> int:
  """Run one command; the exit code."""

  def command():
    options, rest = parser().parse_known_args(arguments)
    return options.command(options, rest)

  return answered("gm-jax", command)


def answered(name: str, command: Callable[[], int | None]) -> int:
  """The exit code of a command; what stops it is told in one line that begins with the `name` of the program."""
  memory.keep()
  try:
    return command() or DONE
  except SystemExit as done:  # after --help and --version
    return done.code or DONE
  except UserError as error:
    return _complain(name, error, BAD_INPUT)
  except BrokenPipeError:  # `gm-jax list | head`: the reader has had enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
  except OSError as error:
    if error.errno not in BAD_PATH:
      raise
    return _complain(name, f"cannot use {os.fspath(error.filename or '')!r}: {error.strerror}", BAD_INPUT)
  except CheckpointError as error:
    return _complain(name, error, BAD_INPUT if getattr(error.__cause__, "errno", None) in BAD_PATH else FAILED)
  except NonFiniteError as error:
    return _complain(name, error, FAILED)
  except Stopped as stop:
    return _complain(name, stop, 128 + stop.signal_number)
  except KeyboardInterrupt:
    return _complain(name, "interrupted", INTERRUPTED)


def _complain(name: str, message, code: int) -> int:
  print(f"{name}: {' '.join(str(message).split())}", file=sys.stderr)
  return code
