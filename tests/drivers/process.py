"""Start the driver, read what it says, and end it."""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).parents[2]


def xla_flags(devices: int) -> str:
  """The suite's own, with another number of virtual devices."""
  return os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")


class Driver(subprocess.Popen):
  """`python -m tests.drivers.run` as a real process of its own."""

  def __init__(self, *arguments, fault: str | None = None, devices: int = 1, limit_bytes: int | None = None):
    cache = pathlib.Path(tempfile.gettempdir()) / f"gm_jax-test-cache-{os.getuid()}"
    environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": xla_flags(devices),
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
      "PYTHONPATH": str(ROOT),
    }
    if fault:
      environment["GM_JAX_FAULT"] = fault
    command = [sys.executable, "-m", "tests.drivers.run", *map(str, arguments)]
    if limit_bytes:
      command = ["bash", "-c", f"ulimit -f {limit_bytes // 1024}; exec \"$@\"", "bash", *command]
    super().__init__(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    # A pipe that nobody reads would stop the process when it is full.
    self.complaints = []
    self.reader = threading.Thread(target=lambda: self.complaints.extend(self.stderr), daemon=True)
    self.reader.start()

  def wait_for(self, *words) -> list[str]:
    """Read lines until one that begins with these words; that line, split.  Fails if the process ends before."""
    wanted = [str(word) for word in words]
    for line in self.stdout:
      if line.split()[: len(wanted)] == wanted:
        return line.split()
    raise AssertionError(f"ended with {self.wait()} before it said {wanted}: {self.complaint()}")

  def finish(self) -> tuple[int, list[list[str]]]:
    """Exit status, and the rest of what it said."""
    lines = [line.split() for line in self.stdout]
    return self.wait(timeout=120), lines

  def complaint(self) -> str:
    """What it wrote to standard error."""
    self.reader.join(timeout=10)
    return "".join(self.complaints)
