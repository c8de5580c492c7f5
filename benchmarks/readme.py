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
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"

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
  rows, results, headers = [], [], experiments.headers()
  for family, (known, reports) in FAMILIES.items():
    members = sorted(path for path in (ROOT / "gm_jax" / family).glob("*.py") if path.stem != "__init__")
    if members:
      links = ", ".join(f"[{path.stem}](gm_jax/{family}/{path.name})" for path in members)
      rows.append([f"[{family}](gm_jax/{family}/__init__.py)", known, f"`{reports}`", links])
    results += [_result(header) for header in headers if header.family == family]
  members = _table(["family", "what is known", "`evaluate` reports", "members"], rows)
  return members + "\n\n" + _table(["experiment", "minutes", "measured"], results)


def _result(header: experiments.Header) -> list[str]:
  measured = experiments.UNMEASURED not in (header.minutes, header.expected)
  return [_link(header.name), *([f"{header.minutes}, {header.hardware}", header.expected] if measured else ["", ""])]


def _link(experiment: str) -> str:
  return f"[`{experiment}`](experiments/{experiment}.py)"


def _table(titles, rows) -> str:
  """In Markdown; every row has an entry for each title."""
  return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows))


def _record(name: str) -> dict:
  return json.loads((RESULTS / f"{name}.json").read_text())


def measured() -> str:
  """A line for each benchmark that has a record."""
  lines = []
  for path in sorted(RESULTS.glob("*.json")):
    if path.stem in SENTENCES:
      record = _record(path.stem)
      where = f"{record['cores']} cores of {record['processor']}"
      lines.append(f"- {SENTENCES[path.stem](record)} ([record](benchmarks/results/{path.name}), {where})")
  return "\n".join(lines)


def _conv(record) -> str:
  least, most = (choose(row["ratio"] for row in record["rows"].values()) for choose in (min, max))
  return f"Gradients of convolutions on a CPU: {least:.1f} to {most:.0f} times as fast as flax's, by shape and place."


def _gan_torch(record) -> str:
  told = " and ".join(f"{row['times_as_fast']['pytorch']:.2f} times ({name})" for name, row in record["rows"].items())
  return (
    f"A train step of DCGAN on {record['batch']} images of 28 x 28, both players and the average, is {told} as fast as "
    f"the same in PyTorch {record['versions']['torch']}; `dcgan_mnist` has base 32."
  )


def _many_seeds(record) -> str:
  both, one = ([row["times_as_fast"][way] for row in record["rows"].values()] for way in ("at once", "one device"))
  return (
    f"{record['seeds']} seeds of a GAN of points learn in one program {min(both):.2f} to {max(both):.2f} times as fast as one "
    f"after the other, and to the same numbers; on one device in place of two {min(one):.2f} to {max(one):.2f}."
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
  rows = {what: row["times_as_fast"] for what, row in record.items() if isinstance(row, dict) and "times_as_fast" in row}
  one, other = rows["sample"]
  size = record["parameters"]["gm_jax"] / 1e6
  told = [f"{ratios[one]:.2f} and {ratios[other]:.2f} (a {what})" for what, ratios in rows.items()]
  return (
    f"How many times as fast DDPM's U-Net ({size:.1f} M parameters, 32 x 32) is as those of {one} and of {other}: "
    f"{', '.join(told)}; steps by their number of images, samples by DDIM."
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
  """What test images take on disk: a row for each general format, then for each run, the best last."""
  runs = sorted(_record("compression")["rows"].values(), key=lambda row: -row["bits_per_image"]["file"])
  others = {name: bits for name, bits in runs[0]["bits_per_image"].items() if name not in ("file", "likelihood")}
  rows = [[name, f"{bits:.1f}", "", ""] for name, bits in sorted(others.items(), key=lambda other: -other[1])]
  for run in runs:
    name, bits = f"{_link(run['experiment'])} {run['options']}".strip(), run["bits_per_image"]
    times = f"{run['compress_seconds']:.0f}, {run['decompress_seconds']:.0f}"
    rows.append([name, f"{bits['file']:.1f}", f"{bits['likelihood']:.1f}", times])
  return _table(["bits per image", "on disk", "promised", "seconds there and back"], rows)


def restoration() -> str:
  """What was lost and how well it is given back: by the model, and by the best of the simple methods."""
  rows = []
  shown = lambda metrics: f"{metrics['psnr'][0]:.1f} dB, {metrics['ssim'][0]:.2f}"
  for row in _record("restoration")["rows"].values():
    lossy = lambda metrics: metrics["psnr"][0] < 58.9  # what is equal to the last bit counts as that
    methods = {name: metrics for name, metrics in row["methods"].items() if lossy(metrics)}
    model = methods.pop("model")
    simple = max(methods, key=lambda name: methods[name]["psnr"][0])
    corrupted = shown(methods["corrupted"]) if "corrupted" in methods else ""
    beside = f"{shown(methods[simple])} ({simple})" if simple != "corrupted" else "none is above that"
    rows.append([row["task"], _link(row["experiment"]), corrupted, beside, shown(model)])
  return _table(["lost", "images", "corrupted", "best simple method", "model"], rows)


def diffusion() -> str:
  """Recipes: bits/dim two ways, and what a classifier says of samples."""
  rows, runs = [], list(_record("diffusion")["rows"].values())
  manifold = lambda scores: [f"{scores['coverage']:.3f}", f"{scores['precision']:.3f}, {scores['recall']:.3f}"]
  for row in runs:
    bits = ["{:.3f} +- {:.3f}".format(*row["scores"][f"{name}_bits_per_dim"][:2]) for name in ("nll_bound", "nll")]
    rows.append([_link(row["protocol"]["experiment"]), *bits, f"{row['guided']['accuracy']:.1%}", *manifold(row["free"])])
  rows.append(["training images", "", "", "", *manifold(runs[0]["training_images"])])
  titles = "run", "bound, bits/dim", "flow, bits/dim", "digits as asked, guided", "coverage, free", "precision, recall, free"
  return _table(titles, rows)


def solvers() -> str:
  """Solvers by evaluations, on the first run of the record."""
  name, row = next(iter(_record("diffusion")["rows"].items()))
  shown = lambda distances: ["" if distance is None else f"{distance:.4f}" for distance in distances]
  rows = [[solver, *shown(distances)] for solver, distances in row["distances"].items()]
  return _table([f"`{name}`", *map(str, row["evaluations"])], rows)


def gan_modes() -> str:
  """Games and remedies: modes, quality and divergence over seeds, on each law."""
  laws = _record("gan_modes")["laws"]
  titles = ["game + remedies"]
  for law, found in laws.items():
    titles += [f"{law}: modes of {found['protocol']['modes']}", "high quality", "reverse KL, nats", "collapsed", "seconds"]
  names = dict.fromkeys(name for found in laws.values() for name in found["rows"])
  cells = {name: [cell for found in laws.values() for cell in _of_law(found, name)] for name in names}
  return _table(titles, [[name.replace("_", " "), *row] for name, row in cells.items()])


def _of_law(found: dict, name: str) -> list[str]:
  """The five cells of a row; seconds are unknown of one that was stopped on its way."""
  row = found["rows"].get(name)
  if row is None or "failed" in row:
    return ["" if row is None else "not finite", "", "", "", ""]
  forms = {"modes": "{:.1f} +- {:.1f}", "high_quality": "{:.1%} +- {:.1%}", "reverse_kl": "{:.3f} +- {:.3f}"}
  seconds = row.get("seconds")
  scores = [form.format(*row[name]) for name, form in forms.items()]
  return [*scores, f"{row['collapse_rate']:.0%}", f"{seconds:.0f}" if seconds else ""]


def gan_games() -> str:
  """Games by one architecture: the best and the last Frechet distance."""
  record = _record("gan_games")
  shown = lambda pair: f"{pair[0]:.1f} +- {pair[1]:.1f}"
  ranked = sorted(record["rows"].items(), key=lambda entry: entry[1]["last"][0])
  rows = [[name.replace("_", " "), shown(row["best"]), shown(row["last"]), f"{row['ratio']:.2f}"] for name, row in ranked]
  rows.append(["training images", "", f"{record['training_images']:.1f}", ""])
  return _table(["game", "best", "last", "last / best"], rows)


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
