"""The persistent compile cache: compiled programs, kept in the user's own cache directory.

Whoever can write there can run code as its owner, so the directory is his alone (mode 0700) or it is not used.
"""

import os
import pathlib
import sys

import jax


def directory() -> pathlib.Path:
  """Where the cache is kept unless JAX_COMPILATION_CACHE_DIR says otherwise."""
  home = pathlib.Path.home()
  platforms = {"darwin": home / "Library" / "Caches", "win32": home / "AppData" / "Local"}
  base = os.environ.get("XDG_CACHE_HOME") or platforms.get(sys.platform, home / ".cache")
  return pathlib.Path(base) / "gm_jax" / "compiled"


def switch_on() -> str:
  """Let JAX keep what it compiles, unless the environment or a caller has chosen a place already; what was done, in words."""
  chosen = jax.config.jax_compilation_cache_dir
  if chosen:
    return f"{chosen} (chosen by JAX_COMPILATION_CACHE_DIR or the caller)"
  place = directory()
  try:
    make_private(place)
  except OSError as error:
    return f"off: {place}: {error.strerror or error}"
  jax.config.update("jax_compilation_cache_dir", str(place))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
  return str(place)


def make_private(place: pathlib.Path) -> None:
  """Make the directory, open to nobody but its owner; OSError where that cannot be had."""
  place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
  place.mkdir(mode=0o700, exist_ok=True)
  found = place.lstat()
  if place.is_symlink() or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
    raise PermissionError(1, "it is a link, or belongs to somebody else")
  if found.st_mode & 0o077:
    place.chmod(0o700)
