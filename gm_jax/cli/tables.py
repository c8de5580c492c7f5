"""Numbers as text."""


def metrics(report: dict) -> str:
  """A line for each metric of a report, and its protocol."""
  lines = []
  for name, score in report["metrics"].items():
    spread = "" if score["stderr"] is None else f" +- {score['stderr']:.4g}"
    unit = "" if score["unit"] == "1" else f" {score['unit']}"
    lines.append(f"{name:<24} {score['mean']:.6g}{spread}{unit}  ({score['count']} examples)")
  return "\n".join([*lines, f"protocol: {protocol(report['protocol'])}"])


def protocol(entries: dict) -> str:
  """On one line, without the run's whole configuration."""
  return ", ".join(f"{name} {value}" for name, value in entries.items() if name != "config")


def grid(head: list, rows: list[list], texts: int) -> str:
  """Columns under their heads, the first `texts` of them to the left and the others to the right."""
  table = [[str(entry) for entry in row] for row in (head, *rows)]
  widths = [max(map(len, column)) for column in zip(*table)]
  put = lambda column, entry: f"{entry:{'<' if column < texts else '>'}{widths[column]}}"
  return "\n".join("  ".join(put(*entry) for entry in enumerate(row)).rstrip() for row in table)
