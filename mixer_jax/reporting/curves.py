"""curves.png: loss, accuracy and learning rate over the epochs of a run."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mixer_jax.run_directory import best_epoch


def plot_curves(history: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draws the lines of metrics.jsonl as a PNG of three panels, the best epoch marked."""
    epochs = [record["epoch"] for record in history]
    best = best_epoch(history)
    # A Figure of its own, not pyplot's: no display, no global state.
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    marker = "o" if len(epochs) < 3 else None
    for panel, key, name in ((loss, "loss", "loss"), (accuracy, "accuracy", "accuracy (%)")):
        panel.plot(epochs, [r[f"train_{key}"] for r in history], "--", color="tab:gray", marker=marker, label="train")
        panel.plot(epochs, [r[f"val_{key}"] for r in history], color="tab:blue", marker=marker, label="validation")
        panel.plot(
            best["epoch"], best[f"val_{key}"], "o", color="tab:orange",
            label=f"best epoch {best['epoch']}: {best[f'val_{key}']:.4g}",
        )  # fmt: skip
        panel.set_title(name)
        panel.legend(frameon=False)
    rate.plot(epochs, [r["learning_rate"] for r in history], color="tab:green", marker=marker)
    rate.set_title("learning rate at the end of the epoch")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    for panel in (loss, accuracy, rate):
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
        panel.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
