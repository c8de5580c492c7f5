"""Eight virtual devices, strict arithmetic, and one compile cache for the whole suite: set before JAX starts."""

import os
import pathlib
import tempfile

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight devices in eight threads call LAPACK at once; with threads of its own each would wait for all the others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
_cache = pathlib.Path(tempfile.gettempdir()) / f"gm_jax-test-cache-{os.getuid()}"
_cache.mkdir(mode=0o700, exist_ok=True)
jax.config.update("jax_compilation_cache_dir", str(_cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """TFDS's folder with the real data sets; the test is skipped where there is none, which `.ci/run` allows only then."""
  if not SHARED_DATA.is_dir():
    pytest.skip("no real data sets at ../shared/data/tfds")
  return SHARED_DATA
