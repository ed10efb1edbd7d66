"""Output for people: console progress, curves, TensorBoard, summaries, reports, model cards and scores."""

from mixer_jax.reporting.curves import LiveCurves, plot_curves, plot_trajectories
from mixer_jax.reporting.observer import Observer
from mixer_jax.reporting.progress import ConsoleProgress, SeedsProgress
from mixer_jax.reporting.report import draw_curves, finish, optional
from mixer_jax.reporting.scores import describe, plot_confusion, write_classes, write_confusion, write_predictions
from mixer_jax.reporting.steps import StepLog, chosen_steps
from mixer_jax.reporting.summary import summarize
from mixer_jax.reporting.tensorboard import TensorBoard

__all__ = [
    "ConsoleProgress",
    "LiveCurves",
    "Observer",
    "SeedsProgress",
    "StepLog",
    "TensorBoard",
    "chosen_steps",
    "describe",
    "draw_curves",
    "finish",
    "optional",
    "plot_confusion",
    "plot_curves",
    "plot_trajectories",
    "summarize",
    "write_classes",
    "write_confusion",
    "write_predictions",
]
