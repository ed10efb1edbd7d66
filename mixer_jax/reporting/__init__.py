"""What people see of a run: the console, the curves, TensorBoard, the summary."""

from mixer_jax.reporting.curves import plot_curves
from mixer_jax.reporting.progress import ConsoleProgress
from mixer_jax.reporting.summary import summarize
from mixer_jax.reporting.tensorboard import TensorBoard

__all__ = ["ConsoleProgress", "TensorBoard", "plot_curves", "summarize"]
