"""What becomes of memory that was freed.

On a CPU every call of a compiled program takes its buffers from the C library and gives them back when it ends.  glibc hands
blocks of more than 32 MiB back to the system at once; the next call gets them as pages of zeros, 4 KiB at a time.  For a train
step of a U-Net that is 600 MiB a step, and a seventh of the processor's time.
"""

import ctypes
import sys

# Names of glibc's settings (mallopt(3)), and values: nothing is mapped apart, nothing is given back, however much (-1), and
# all threads share one heap, since other threads' heaps have 64 MiB at most.
_KEPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}


def keep() -> bool:
  """From now on freed memory stays with this process, for its next call; before JAX starts its threads.

  Every `gm-jax` command does so.  The process then stays as large as it has ever been.

  Returns:
    whether the C library could be told: True with glibc on Linux; with another one nothing is changed.
  """
  if not sys.platform.startswith("linux"):
    return False
  library = ctypes.CDLL(None)
  return hasattr(library, "gnu_get_libc_version") and all([library.mallopt(*setting) for setting in _KEPT.values()])
