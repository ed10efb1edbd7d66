"""Output for people: console progress, curves, TensorBoard, summaries, reports, model cards and scores."""

from mixer_jax.reporting.card import model_card
from mixer_jax.reporting.curves import LiveCurves, plot_curves, plot_trajectories
from mixer_jax.reporting.observer import Observer
from mixer_jax.reporting.predictions import write_predictions
from mixer_jax.reporting.progress import ConsoleProgress, SeedsProgress
from mixer_jax.reporting.report import finish, finish_seeds
from mixer_jax.reporting.rows import Row, plot_rows
from mixer_jax.reporting.scores import describe, plot_confusion, write_classes, write_confusion
from mixer_jax.reporting.steps import StepLog
from mixer_jax.reporting.summary import summarize
from mixer_jax.reporting.tensorboard import TensorBoard

__all__ = [
    "ConsoleProgress",
    "LiveCurves",
    "Observer",
    "Row",
    "SeedsProgress",
    "StepLog",
    "TensorBoard",
    "describe",
    "finish",
    "finish_seeds",
    "model_card",
    "plot_confusion",
    "plot_curves",
    "plot_rows",
    "plot_trajectories",
    "summarize",
    "write_classes",
    "write_confusion",
    "write_predictions",
]
