"""Writes the generated parts of README.md: the table of families and what was measured, from the files that hold them.

Command: python benchmarks/readme.py [--check]
Expected: README.md between its markers says what the experiments' headers and benchmarks/results/*.json say

A number in the table was measured: it stands in an experiment's header, or in a record that a benchmark wrote.
"""

import json
import pathlib
import re
import sys

import experiments

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"

# family: (what is known of p(x), what `evaluate` reports)
FAMILIES = {
  "tractable": ("log p(x), exactly", "nll"),
  "approximate": ("a bound on log p(x)", "nll_bound"),
  "implicit": ("nothing; only samples", "critic"),
  "score": ("the gradient of log p(x)", "denoising"),
  "reconstruction": ("nothing; only codes", "reconstruction"),
}


def families() -> str:
  """A row for each family that has members: what is known and who lives there; then a row for each experiment."""
  rows = ["| family | what is known | `evaluate` reports | members |", "|---|---|---|---|"]
  results = ["| experiment | minutes | measured |", "|---|---|---|"]
  headers = experiments.headers()
  for family, (known, reports) in FAMILIES.items():
    members = sorted(path for path in (ROOT / "gm_jax" / family).glob("*.py") if path.stem != "__init__")
    if members:
      links = ", ".join(f"[{path.stem}](gm_jax/{family}/{path.name})" for path in members)
      rows.append(f"| [{family}](gm_jax/{family}/__init__.py) | {known} | `{reports}` | {links} |")
    results += [_result(header) for header in headers if header.family == family]
  return "\n".join([*rows, "", *results])


def _result(header: experiments.Header) -> str:
  name = f"[`{header.name}`](experiments/{header.name}.py)"
  measured = experiments.UNMEASURED not in (header.minutes, header.expected)
  return f"| {name} | {header.minutes}, {header.hardware} | {header.expected} |" if measured else f"| {name} | | |"


def measured() -> str:
  """A line for each benchmark that has a record."""
  lines = []
  for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
    record = json.loads(path.read_text())
    if path.stem in SENTENCES:
      where = f"{record['cores']} cores of {record['processor']}"
      lines.append(f"- {SENTENCES[path.stem](record)} ([record](benchmarks/results/{path.name}), {where})")
  return "\n".join(lines)


def _conv(record) -> str:
  least, most = (choose(row["ratio"] for row in record["rows"].values()) for choose in (min, max))
  return f"Gradients of convolutions on a CPU: {least:.1f} to {most:.0f} times as fast as flax's, by shape and place."


def _gan_torch(record) -> str:
  ratios = [row["times_as_fast"]["pytorch"] for row in record["rows"].values()]
  return (
    f"A train step of DCGAN on {record['batch']} images of 28 x 28, both players and the average, is {min(ratios):.1f} to "
    f"{max(ratios):.1f} times as fast as the same in PyTorch {record['versions']['torch']}."
  )


def _many_seeds(record) -> str:
  ratios = [row["steps"]["ratio"] for row in record["rows"].values()]
  return (
    f"{record['seeds']} seeds of a GAN of points learn in one program {min(ratios):.1f} to {max(ratios):.1f} times as fast as "
    "one after the other, and to the same numbers."
  )


def _imports(record) -> str:
  milliseconds = record["times"]["gm-jax --help"]["median_ms"]
  return (
    f"Importing all of gm_jax takes {record['ratio']:.2f} times as long as jax, flax and optax alone; "
    f"`gm-jax --help` answers in {milliseconds / 1000:.2f} s."
  )


def _loop(record) -> str:
  microseconds = record["steps_as_short_as_they_get"]["processor"]["extra_us_per_step"]
  millions = min(record["images_per_second_from_memory"].values()) / 1e6
  return (
    f"The loop, with data, checks for NaN, metrics and progress, adds {microseconds / 1000:.1f} ms of processor time to a "
    f"step; batches from memory come at {millions:.1f} million small images a second."
  )


def _compression(record) -> str:
  best = min(record["rows"].values(), key=lambda row: row["bits_per_image"]["file"])
  bits = best["bits_per_image"]
  other = min((name for name in bits if name not in ("file", "likelihood")), key=bits.get)
  return (
    f"The {best['count']:,} test images of {best['data']} take {bits['file']:.1f} bits each on disk by `{best['experiment']}`, "
    f"whose likelihood promises {bits['likelihood']:.1f}, and {bits[other]:.0f} as {other}; every bit comes back."
  )


def _diffusion_torch(record) -> str:
  ratios = {what: record[what]["times_as_fast"] for what in ("train step", "sample")}
  one, other = ratios["train step"]
  size = record["parameters"]["gm_jax"] / 1e6
  return (
    f"A train step of DDPM's U-Net ({size:.1f} M parameters, 32 x 32) is {ratios['train step'][one]:.1f} and "
    f"{ratios['train step'][other]:.1f} times as fast as that of {one} and of {other}, a sample by DDIM "
    f"{ratios['sample'][one]:.1f} and {ratios['sample'][other]:.1f} times."
  )


def _sampling(record) -> str:
  least, most = (choose(row["ratio"] for row in record["rows"].values()) for choose in (min, max))
  return (
    f"Drawing 28 x 28 images pixel by pixel from remembered activations is {least:.0f} to {most:.0f} times as fast as by a "
    "whole pass for each pixel, and draws the same images."
  )


def _sampling_torch(record) -> str:
  return (
    f"Drawing 28 x 28 images from a PixelCNN is {record['ratio']:.0f} times as fast as from the same network with the same "
    f"weights in PyTorch {record['versions']['torch']} by the usual loop, a whole pass for each pixel."
  )


SENTENCES = {
  "compression": _compression,
  "conv": _conv,
  "diffusion_torch": _diffusion_torch,
  "gan_torch": _gan_torch,
  "imports": _imports,
  "loop": _loop,
  "many_seeds": _many_seeds,
  "sampling": _sampling,
  "sampling_torch": _sampling_torch,
}


def compression() -> str:
  """A table of what test images take on disk: a row for each run, the best last, and for each general format."""
  record = json.loads((ROOT / "benchmarks" / "results" / "compression.json").read_text())
  runs = sorted(record["rows"].values(), key=lambda row: -row["bits_per_image"]["file"])
  others = {name: bits for name, bits in runs[0]["bits_per_image"].items() if name not in ("file", "likelihood")}
  rows = ["| bits per image | on disk | promised | seconds there and back |", "|---|---|---|---|"]
  rows += [f"| {name} | {bits:.1f} | | |" for name, bits in sorted(others.items(), key=lambda other: -other[1])]
  for run in runs:
    name, bits = f"[`{run['experiment']}`](experiments/{run['experiment']}.py) {run['options']}", run["bits_per_image"]
    times = f"{run['compress_seconds']:.0f}, {run['decompress_seconds']:.0f}"
    rows.append(f"| {name.strip()} | {bits['file']:.1f} | {bits['likelihood']:.1f} | {times} |")
  return "\n".join(rows)


def restoration() -> str:
  """A table of what was lost and how well it is given back: the model, and the best of the simple methods."""
  record = json.loads((ROOT / "benchmarks" / "results" / "restoration.json").read_text())
  rows = ["| lost | images | corrupted | best simple method | model |", "|---|---|---|---|---|"]
  shown = lambda metrics: f"{metrics['psnr'][0]:.1f} dB, {metrics['ssim'][0]:.2f}"
  for row in record["rows"].values():
    lossy = lambda metrics: metrics["psnr"][0] < 58.9  # what is equal to the last bit counts as that
    methods = {name: metrics for name, metrics in row["methods"].items() if lossy(metrics)}
    model = methods.pop("model")
    simple = max(methods, key=lambda name: methods[name]["psnr"][0])
    where = f"[`{row['experiment']}`](experiments/{row['experiment']}.py)"
    corrupted = shown(methods["corrupted"]) if "corrupted" in methods else ""
    beside = f"{shown(methods[simple])} ({simple})" if simple != "corrupted" else "none is above that"
    rows.append(f"| {row['task']} | {where} | {corrupted} | {beside} | {shown(model)} |")
  return "\n".join(rows)


def diffusion() -> str:
  """A table of recipes: bits/dim two ways, and what a classifier says of samples."""
  record = json.loads((ROOT / "benchmarks" / "results" / "diffusion.json").read_text())
  titles = "run", "bound, bits/dim", "flow, bits/dim", "digits as asked, guided", "coverage, free", "precision, recall, free"
  rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
  for row in record["rows"].values():
    experiment, free = row["protocol"]["experiment"], row["free"]
    shown = lambda name, row=row: "{:.3f} +- {:.3f}".format(*row["scores"][f"{name}_bits_per_dim"][:2])
    told = f"{row['guided']['accuracy']:.1%} | {free['coverage']:.3f} | {free['precision']:.3f}, {free['recall']:.3f}"
    rows.append(f"| [`{experiment}`](experiments/{experiment}.py) | {shown('nll_bound')} | {shown('nll')} | {told} |")
  real = next(iter(record["rows"].values()))["training_images"]
  rows.append(f"| training images | | | | {real['coverage']:.3f} | {real['precision']:.3f}, {real['recall']:.3f} |")
  return "\n".join(rows)


def solvers() -> str:
  """A table of solvers by evaluations, on the first run of the record."""
  record = json.loads((ROOT / "benchmarks" / "results" / "diffusion.json").read_text())
  name, row = next(iter(record["rows"].items()))
  rows = [f"| `{name}` | {' | '.join(map(str, row['evaluations']))} |", "|---" * (1 + len(row["evaluations"])) + "|"]
  shown = lambda distances: " | ".join("" if distance is None else f"{distance:.4f}" for distance in distances)
  return "\n".join([*rows, *(f"| {solver} | {shown(distances)} |" for solver, distances in row["distances"].items())])


def gan_modes() -> str:
  """A table of games and remedies: modes, quality, divergence and collapse over seeds."""
  record = json.loads((ROOT / "benchmarks" / "results" / "gan_modes.json").read_text())
  titles = "game + remedies", f"modes of {record['protocol']['modes']}", "high quality", "reverse KL, nats", "collapsed", "s"
  rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
  for name, row in record["rows"].items():
    if "failed" in row:
      rows.append(f"| {name} | not finite" + " |" * (len(titles) - 1))
      continue
    told = ["{:.1f} +- {:.1f}".format(*row["modes"]), "{:.1%} +- {:.1%}".format(*row["high_quality"])]
    told += ["{:.3f} +- {:.3f}".format(*row["reverse_kl"]), f"{row['collapse_rate']:.0%}"]
    seconds = row.get("seconds")
    rows.append(f"| {name.replace('_', ' ')} | {' | '.join(told)} | {'' if seconds is None else format(seconds, '.0f')} |")
  return "\n".join(rows)


def gan_games() -> str:
  """A table of games by one architecture: the best and the last Frechet distance."""
  record = json.loads((ROOT / "benchmarks" / "results" / "gan_games.json").read_text())
  rows = ["| game | best | last | last / best |", "|---|---|---|---|"]
  shown = lambda pair: f"{pair[0]:.1f} +- {pair[1]:.1f}"
  for name, row in sorted(record["rows"].items(), key=lambda entry: entry[1]["last"][0]):
    rows.append(f"| {name.replace('_', ' ')} | {shown(row['best'])} | {shown(row['last'])} | {row['ratio']:.2f} |")
  return "\n".join([*rows, f"| training images | | {record['training_images']:.1f} | |"])


def generated(text: str) -> str:
  """README.md with its generated parts written anew."""
  for write in (families, measured, compression, restoration, diffusion, solvers, gan_modes, gan_games):
    name = write.__name__
    begin, end = f"<!-- {name}: written by benchmarks/readme.py -->", f"<!-- end of {name} -->"
    if begin not in text:
      continue
    part = f"{begin}\n{write()}\n{end}"
    text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, part=part: part, text, flags=re.DOTALL)
  return text


def main() -> int:
  before = README.read_text(encoding="utf-8")
  after = generated(before)
  if "--check" in sys.argv[1:]:
    print("README.md is up to date" if before == after else "README.md is out of date: python benchmarks/readme.py")
    return int(before != after)
  README.write_text(after, encoding="utf-8")
  return 0


if __name__ == "__main__":
  sys.exit(main())
