"""Points on the plane beside each other, for the experiments to show."""

import numpy as np


def scattered(panels: dict[str, np.ndarray], reach: float) -> np.ndarray:
  """`{title: points [N, 1, 1, 2]}` in a row of squares [-reach, reach]: uint8 [H, W, 3]."""
  from experiments import plots

  made, axes = plots.figure(columns=len(panels))
  for panel, (title, points) in zip(axes[0], panels.items()):
    panel.scatter(*np.asarray(points).reshape(-1, 2).T, s=1, color="black")
    panel.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
  return plots.to_array(made)
