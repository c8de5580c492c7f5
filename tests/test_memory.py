"""Freed memory stays with the process: the next call does not wait for new pages."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, threading
from gm_jax import memory

def use():
  b"x" * 2**26  # 64 MiB, or 16,384 pages

def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep" and not memory.keep():
  sys.exit(77)
for run in (use, lambda: [thread.start() or thread.join() for thread in [threading.Thread(target=use)]]):
  run()
  before = faults()
  for _ in range(10):
    run()
  print(faults() - before)
"""


def new_pages(how: str) -> list[int]:
  """In ten calls, from the first thread and from others."""
  done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, timeout=120)
  if done.returncode == 77:
    pytest.skip("the C library is not glibc")
  assert done.returncode == 0, done.stderr
  return [int(line) for line in done.stdout.split()]


def test_what_was_freed_is_used_again():
  # Fewer in all than one call has: unless they are kept, every call takes its own.
  assert max(new_pages("keep")) < 16_384
