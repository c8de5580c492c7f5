"""Numbers as text."""


def metrics(report: dict) -> str:
  """A line for each metric of a report, and its protocol."""
  lines = [f"{name:<24} {_score(score)}" for name, score in report["metrics"].items()]
  return "\n".join([*lines, f"protocol: {protocol(report['protocol'])}"])


def _score(score: dict) -> str:
  """A mean over examples with its standard error, or over models with their standard deviation."""
  unit = "" if score["unit"] == "1" else f" {score['unit']}"
  if "std" in score:
    return f"{score['mean']:.6g}{unit}  (standard deviation {score['std']:.4g} over {score['count']} models)"
  spread = "" if score["stderr"] is None else f" +- {score['stderr']:.4g}"
  return f"{score['mean']:.6g}{spread}{unit}  ({score['count']} examples)"


def over_models(metrics: dict) -> str:
  """What several models have, on one line: means and standard deviations; of a single one, what it has."""
  count = next(iter(metrics.values()))["count"]
  if count == 1:
    return ", ".join(f"{name} {score['mean']:.4g}" for name, score in metrics.items())
  told = ", ".join(f"{name} {score['mean']:.4g} +- {score['std']:.2g}" for name, score in metrics.items())
  return f"{count} models, mean +- standard deviation: {told}"


def protocol(entries: dict) -> str:
  """On one line, without the run's whole configuration."""
  return ", ".join(f"{name} {value}" for name, value in entries.items() if name != "config")


def grid(head: list, rows: list[list], texts: int) -> str:
  """Columns under their heads, the first `texts` of them to the left and the others to the right."""
  table = [[str(entry) for entry in row] for row in (head, *rows)]
  widths = [max(map(len, column)) for column in zip(*table)]
  put = lambda column, entry: f"{entry:{'<' if column < texts else '>'}{widths[column]}}"
  return "\n".join("  ".join(put(*entry) for entry in enumerate(row)).rstrip() for row in table)
