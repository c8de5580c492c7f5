"""Freed memory stays with the process: the next call does not wait for new pages."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, threading
from gm_jax import cli, memory

def use():
  b"x" * 2**26  # 64 MiB, or 16,384 pages

def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

assert {"memory.keep": memory.keep, "a command": lambda: cli.answered("gm-jax", int) == 0}[sys.argv[1]]()
for run in (use, lambda: [thread.start() or thread.join() for thread in [threading.Thread(target=use)]]):
  run()
  before = faults()
  for _ in range(10):
    run()
  print(faults() - before)
"""


def new_pages(how: str) -> list[int]:
  """Of ten calls in the first thread, and of ten in others, in a process that was told to keep its memory so."""
  done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told")
@pytest.mark.parametrize("how", ["memory.keep", "a command"])
def test_what_was_freed_is_used_again(how):
  # Fewer in all than one call has: unless they are kept, every call takes its own.
  assert max(new_pages(how)) < 16_384
