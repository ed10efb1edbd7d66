"""What people see: the console, curves, TensorBoard, the summary of a run, the scores of a model, rows of images."""

from mixer_jax.reporting.card import model_card
from mixer_jax.reporting.curves import LiveCurves, plot_curves, plot_trajectories, stack_curves
from mixer_jax.reporting.progress import ConsoleProgress
from mixer_jax.reporting.rows import Row, plot_rows
from mixer_jax.reporting.scores import describe, plot_confusion, write_confusion
from mixer_jax.reporting.summary import aggregate, summarize
from mixer_jax.reporting.tensorboard import TensorBoard

__all__ = [
    "ConsoleProgress",
    "LiveCurves",
    "Row",
    "TensorBoard",
    "aggregate",
    "describe",
    "model_card",
    "plot_confusion",
    "plot_curves",
    "plot_rows",
    "plot_trajectories",
    "stack_curves",
    "summarize",
    "write_confusion",
]
