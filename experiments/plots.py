"""Figures as arrays, for the experiments that show more than samples.  matplotlib comes with the extra "plot"."""

from collections.abc import Callable

import numpy as np

from gm_jax.errors import UserError


def figure(columns: int = 1, rows: int = 1, size: float = 3.2):
  """A figure of rows x columns square panels: `(figure, axes [rows, columns])`, on no screen."""
  try:
    from matplotlib.figure import Figure
  except ImportError:
    raise UserError("figures need matplotlib: pip install 'gm-jax[plot]'") from None
  made = Figure(figsize=(size * columns, size * rows), dpi=100, layout="constrained")
  return made, made.subplots(rows, columns, squeeze=False)


def to_array(made) -> np.ndarray:
  """What the figure looks like, uint8 [H, W, 3]."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(made)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def density(axes, log_prob: Callable, reach: float, size: int = 200, title: str = "") -> None:
  """exp(log_prob) over the square [-reach, reach], as a heat map.  `log_prob`: points float32 [N, 1, 1, 2] -> nats [N]."""
  ticks = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 * reach - reach
  points = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 1, 1, 2)
  heights = np.exp(np.asarray(log_prob(points), np.float64)).reshape(size, size)
  # The square root keeps the foot of a sharp peak visible.
  axes.imshow(np.sqrt(heights), origin="lower", extent=[-reach, reach, -reach, reach], cmap="magma")
  axes.set_title(title, fontsize=9)
  axes.set_xticks([])
  axes.set_yticks([])
