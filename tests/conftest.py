"""Eight virtual devices, strict arithmetic, and one compile cache for the whole suite: set before JAX starts.

Most of the suite's time is compilation of programs that run for milliseconds: they are compiled without optimisation, which
takes half as long.
"""

import gc
import os
import pathlib
import tempfile

FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
# Eight devices share what cores there are: XLA gives the slowest of them 40 seconds to join a collective, then ends all.
FLAGS += " --xla_cpu_collective_call_terminate_timeout_seconds=240"
# A device that waits for the others at a collective holds a thread of XLA's pool, which has as many as there are devices: where
# several collectives are in hand at once, all threads may wait.  NPROC is what XLA takes for the number of cores.
os.environ.setdefault("NPROC", "32")
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
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

# Tracing makes many small objects that live long: the collector would look at them again and again.
gc.set_threshold(100_000, 20, 20)

SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """TFDS's folder with the real data sets; the test is skipped where there is none, which `.ci/run` allows only then."""
  if not SHARED_DATA.is_dir():
    pytest.skip("no real data sets at ../shared/data/tfds")
  return SHARED_DATA


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> pathlib.Path:
  """A directory of the test's own, the current one, in which the runs that the module has `trained` are found by name."""
  for run in trained.iterdir():
    (tmp_path / run.name).symlink_to(run)
  monkeypatch.chdir(tmp_path)
  return tmp_path


# A process may have 65,530 memory maps on Linux, and every compiled program holds several: past that it dies of a segmentation
# fault.  So programs are forgotten before there are too many; the next test that needs one reads it from the cache on disk.
MOST_MAPS, LOOK_EVERY = 25_000, 20
_tests_run = 0


def pytest_runtest_teardown(item):
  global _tests_run
  _tests_run += 1
  maps = pathlib.Path("/proc/self/maps")
  if _tests_run % LOOK_EVERY == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
    jax.clear_caches()
    gc.collect()
