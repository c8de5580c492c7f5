"""Where state and batch live: the only file that names devices.

Models are written for the whole batch.  A `Strategy` says how that program is laid over devices:

  single   one device
  dp       the batch is cut over all devices, the state is on each of them                       (the default)
  fsdp     the batch is cut over all devices, and so is every large parameter with its optimiser state
  pmap     as dp, by `jax.pmap`: for scripts that want the explicit per-device program
  ensemble models that learn side by side (gm_jax/implicit/many.py) are dealt out to the devices, which all see the whole batch

All but `pmap` are one `jit` over a mesh; the compiler places the collectives, and BatchNorm is global for free.
Under all of them the state has the same tree and the same shapes, so a checkpoint saved under one opens under any other.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gm_jax import random, rows
from gm_jax.errors import UserError

DATA, MODEL = "data", "model"
WHOLE, CUT = PartitionSpec(), PartitionSpec((DATA, MODEL))


class Strategy(NamedTuple):
  """How one program for the whole batch is laid over devices.

  Attributes:
    name: as on the command line.
    mesh: axes data x model; the batch is cut over both, what is cut of the state over `model`.
    shardings: `(abstract state) -> tree of NamedSharding`.
    step: `(model.step) -> compiled (seed, index, state, batch) -> (state, metrics)`; the state is donated, and the step's key
      is a function of seed and index.  A tuple of batches is that many steps in one call.
    batch: how every array of a batch is cut.
  """

  name: str
  mesh: Mesh
  shardings: Callable
  step: Callable
  batch: PartitionSpec = CUT

  @property
  def num_devices(self) -> int:
    return self.mesh.size

  def init(self, init: Callable, seed: int, batch):
    """`model.init` with the state born where it will live; `batch` is whole, and the same on every process."""
    seeded = lambda seed, batch: init(random.stream(seed, random.INIT), batch)
    shardings = self.shardings(jax.eval_shape(seeded, np.uint32(seed), batch))
    return jax.jit(seeded, out_shardings=shardings)(np.uint32(seed), batch)

  def abstract_state(self, init: Callable, batch):
    """Shapes, dtypes and shardings of the state, without computing it: what a checkpoint is restored into."""
    shapes = jax.eval_shape(lambda batch: init(random.stream(0, random.INIT), batch), batch)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, self.shardings(shapes))

  def local_rows(self, batch_size: int) -> tuple[int, int]:
    """First and last (exclusive) row of the global batch that this process feeds."""
    if self.batch == WHOLE:
      return 0, batch_size
    if batch_size % self.num_devices:
      num = self.num_devices
      raise UserError(f"batch size {batch_size} cannot be cut over {num} devices; take a multiple of {num}")
    share = batch_size // jax.process_count() if self.num_devices > 1 else batch_size
    return jax.process_index() * share, (jax.process_index() + 1) * share

  def place_batch(self, batch):
    """This process's rows of a batch, as a global array over the mesh."""
    if self.num_devices == 1:
      # The compiled call takes NumPy's arrays to its one device in a tenth of the time that placing them first would cost.
      return jax.tree.map(np.asarray, batch)
    sharding = NamedSharding(self.mesh, self.batch)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def single() -> Strategy:
  """Everything on the first device."""
  return _sharded("single", _mesh(1, 1), lambda leaf: WHOLE)


def dp() -> Strategy:
  """Data parallel over all devices of all processes; equal to `single` where there is only one."""
  return _sharded("dp", _mesh(len(jax.devices()), 1), lambda leaf: WHOLE)


def fsdp(min_bytes: int = 4 * 2**20) -> Strategy:
  """Fully sharded: arrays of at least `min_bytes` are cut along their largest axis that the device count divides."""
  parts = len(jax.devices())
  return _sharded("fsdp", _mesh(1, parts), _largest_axis(parts, min_bytes))


def ensemble() -> Strategy:
  """For a state whose every array has the models side by side as its first axis: some of them on each device.

  Counters are whole on each device: all models are at the same step, and none asks another device which it is.
  """
  parts = len(jax.devices())
  counter = lambda leaf: leaf.ndim == 1 and jnp.issubdtype(leaf.dtype, jnp.integer)
  dealt = lambda leaf: PartitionSpec(MODEL) if leaf.ndim and leaf.shape[0] % parts == 0 and not counter(leaf) else WHOLE
  return _sharded("ensemble", _mesh(1, parts), dealt, batch=WHOLE)


def pmap() -> Strategy:
  """Data parallel by `jax.pmap`.  The state keeps no device axis: it goes in and comes out as one value."""
  mesh = _mesh(len(jax.devices()), 1)
  replicated = NamedSharding(mesh, WHOLE)

  def compile_step(step):
    def step_on_device(seed, index, state, batch):
      with rows.view(axis=DATA):
        return _advance(step, seed, index, state, batch)

    mapped = jax.pmap(step_on_device, DATA, in_axes=(None, None, None, 0), out_axes=None, devices=list(mesh.devices.flat))
    split = lambda leaf: leaf.reshape(mesh.size, len(leaf) // mesh.size, *leaf.shape[1:])
    return lambda seed, index, state, batch: mapped(seed, index, state, jax.tree.map(split, batch))

  return Strategy("pmap", mesh, lambda state: jax.tree.map(lambda leaf: replicated, state), compile_step)


def mesh_of(state) -> Mesh | None:
  """The several devices that each hold all of the state; None if there is one, or if they hold parts, or are not all ours."""
  shardings = [leaf.sharding for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
  meshes = {sharding.mesh if isinstance(sharding, NamedSharding) else None for sharding in shardings}
  whole = all(sharding.is_fully_replicated for sharding in shardings)
  mesh = meshes.pop() if len(meshes) == 1 and whole and jax.process_count() == 1 else None
  return None if mesh is None or mesh.size == 1 else mesh


def in_parts(draw: Callable, mesh: Mesh | None, num: int) -> Callable:
  """`(first, shared, own) -> rows [num, ...]` made by `draw(first, num, shared, own)`, a part of the rows on each device.

  Args:
    draw: what it makes of row i must depend on i alone, and neither on `first` nor on `num`.
    mesh: as from `mesh_of`; None: all is made in one place.
    num: rows in all, a multiple of the number of devices.
  """
  if mesh is None:
    return lambda first, shared, own: draw(first, num, shared, own)
  share = num // mesh.size

  def part(first, shared, own):
    return draw(first + share * jax.lax.axis_index((DATA, MODEL)), share, shared, own)

  return jax.shard_map(part, mesh=mesh, in_specs=(WHOLE, WHOLE, CUT), out_specs=CUT, check_vma=False)


BY_NAME = {"single": single, "dp": dp, "fsdp": fsdp, "pmap": pmap, "ensemble": ensemble}


def _mesh(data: int, model: int) -> Mesh:
  # Auto, because flax layers do not state the sharding of what they compute, which explicit axes demand.
  return jax.make_mesh((data, model), (DATA, MODEL), (AxisType.Auto,) * 2, devices=jax.devices()[: data * model])


def _largest_axis(parts: int, min_bytes: float) -> Callable:
  """A partition that cuts what is large along its largest axis that `parts` divides."""

  def partition(leaf):
    divisible = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0 and size > 0]
    if parts == 1 or not divisible or leaf.size * leaf.dtype.itemsize < min_bytes:
      return WHOLE
    largest = max(divisible, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*(MODEL if axis == largest else None for axis in range(leaf.ndim)))

  return partition


def _sharded(name: str, mesh: Mesh, partition: Callable, batch: PartitionSpec = CUT) -> Strategy:
  """One `jit`, with every array of the state cut as `partition` says."""
  over_devices = NamedSharding(mesh, batch)

  def place(leaf):
    return leaf if batch == WHOLE or len(leaf) % mesh.size else jax.lax.with_sharding_constraint(leaf, over_devices)

  def shardings(state):
    return jax.tree.map(lambda leaf: NamedSharding(mesh, partition(leaf)), state)

  def compile_step(step):
    def seeded(seed, index, state, examples):
      with rows.view(place=place):
        state, metrics = _advance(step, seed, index, state, examples)
      return jax.lax.with_sharding_constraint(state, shardings(state)), metrics

    return jax.jit(seeded, donate_argnums=2)

  return Strategy(name, mesh, shardings, compile_step, batch)


def _advance(step, seed, index, state, batch):
  """One step for one batch; for a tuple of batches as many steps in one program, whose metrics come out stacked."""

  def one(state, now):
    index, batch = now
    return step(jax.random.fold_in(random.stream(seed, random.STEP), index), state, batch)

  if not isinstance(batch, tuple):
    return one(state, (index, batch))
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)
  return jax.lax.scan(one, state, (index + jnp.arange(len(batch)), stacked))


def split_cpu(num: int) -> None:
  """Let JAX count the CPU as `num` devices, before anything else touches JAX; other devices are left alone.

  On a CPU one program leaves cores idle wherever an operation of it is not cut into threads.  With a device for each core, and
  the batch cut over them, every operation runs on all.
  """
  jax.config.update("jax_num_cpu_devices", num)


def initialize_processes(
  coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
  """Join the other processes of a multi-host run, before anything else touches JAX.

  With no arguments JAX finds SLURM, GKE and TPU pods by itself.  The coordinator speaks unauthenticated gRPC: keep it on a
  trusted network.
  """
  jax.distributed.initialize(coordinator, num_processes, process_id)
