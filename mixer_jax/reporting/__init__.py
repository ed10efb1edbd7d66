"""What people see: the console, the curves, TensorBoard, the summary of a run; rows of images."""

from mixer_jax.reporting.curves import plot_curves
from mixer_jax.reporting.progress import ConsoleProgress
from mixer_jax.reporting.rows import Row, plot_rows
from mixer_jax.reporting.summary import aggregate, summarize
from mixer_jax.reporting.tensorboard import TensorBoard

__all__ = ["ConsoleProgress", "Row", "TensorBoard", "aggregate", "plot_curves", "plot_rows", "summarize"]
