"""Is this machine ready?  Versions, devices, data, compile cache, free disk, and one verdict."""

import importlib.metadata
import pathlib
import platform
import shutil

import jax

from gm_jax import data
from gm_jax.cli import cache
from gm_jax.errors import UserError

PACKAGES = ("gm-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy")
ENOUGH_DISK = 2**30  # bytes: a few runs with their checkpoints


def examine(data_dir: pathlib.Path | None) -> tuple[list[str], list[str]]:
  """What was found, a line each, and what is wrong with it, which is hopefully nothing."""
  lines, problems = [f"python     {platform.python_version()} on {platform.platform()}"], []
  for package in PACKAGES:
    try:
      lines.append(f"{package:<20} {importlib.metadata.version(package)}")
    except importlib.metadata.PackageNotFoundError:
      problems.append(f"{package} is not installed")
  devices = jax.devices()
  kinds = ", ".join(sorted({device.device_kind for device in devices}))
  lines.append(f"devices    {len(devices)} x {kinds} ({jax.default_backend()})")
  lines.append(f"digits     {len(data.digits('train'))} + {len(data.digits('test'))} images, embedded")
  if data_dir is not None:
    found = tfds_names(data_dir)
    lines.append(f"data       {data_dir}: {', '.join(found) or 'nothing that TFDS prepared'}")
    if not found:
      problems.append(f"{data_dir} holds no data set of TFDS (a folder NAME/VERSION/dataset_info.json)")
  kept = cache.switch_on()
  lines.append(f"cache      {kept}")
  if kept.startswith("off"):
    problems.append("compiled programs cannot be kept, so every command compiles anew")
  free = shutil.disk_usage(pathlib.Path.cwd()).free
  lines.append(f"disk       {free / 2**30:.1f} GiB free in {pathlib.Path.cwd()}")
  if free < ENOUGH_DISK:
    problems.append("less than 1 GiB of disk is free here, and runs write checkpoints")
  return lines, problems


def tfds_names(data_dir: pathlib.Path) -> list[str]:
  """The data sets that TFDS has prepared in a directory, as name:version."""
  if not data_dir.is_dir():
    raise UserError(f"--data-dir {str(data_dir)!r} is not a directory")
  return sorted(f"{info.parts[-3]}:{info.parts[-2]}" for info in data_dir.glob("*/*/dataset_info.json"))
