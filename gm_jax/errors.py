"""What can go wrong, and whose fault it is.  The command line turns each into one line and an exit code."""


class UserError(ValueError):
  """Bad input.  The message is one line: the value that was given, and what would have been accepted.  Exit code 2."""


class NonFiniteError(RuntimeError):
  """A loss became NaN or infinite.  The message names step, metric and the last good checkpoint.  Exit code 1."""


class CheckpointError(RuntimeError):
  """A checkpoint could not be written.  Exit code 1, or 2 where the path itself cannot be used."""


class DamagedError(CheckpointError, UserError):
  """What was to be read is not there or not whole: the message names each damaged file.  Exit code 2."""


class Stopped(RuntimeError):
  """A signal stopped the run after the step in hand was finished and saved.  Exit code 128 + signal number."""

  def __init__(self, signal_number: int, message: str):
    super().__init__(message)
    self.signal_number = signal_number
