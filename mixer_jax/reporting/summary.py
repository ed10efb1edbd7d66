"""The summary printed at the end of a run, or of several seeds."""

import importlib.util
import math
import shlex

from mixer_jax.records import Results
from mixer_jax.run_directory import RunDirectory

UNEQUAL = 0.5  # percentage points; a difference this large between accuracy and balanced accuracy gets a line


def duration(seconds: float) -> str:
    """Format a time in seconds, such as 1.3 s, 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def sentence(caution: str) -> str:
    """Return one of `Results.cautions` as a sentence."""
    return f"{caution[0].upper()}{caution[1:]}."


def summarize(run: RunDirectory, results: Results) -> str:
    """Return the results of one or several seeds as a few lines: accuracy, time, hardware, and the paths of files."""
    one = results.std is None

    def accuracy(key: str) -> str:
        value = getattr(results, key)
        return f"{value:.2f}%" if one else f"{value:.2f} \u00b1 {results.std[key]:.2f}%"

    r = results
    if one:
        seeds, best, last = f"seed {r.seed}", f"epoch {r.best_epoch}", f"epoch {math.ceil(r.epochs)}, the last"
        logs, kept = run.tensorboard, ("checkpoints", run.checkpoints)
    else:
        seeds, best, last = (
            f"{len(r.seeds)} seeds, mean \u00b1 standard deviation",
            "best epoch of each seed",
            "the last",
        )
        logs, kept = run.path, ("runs", f"{run.path}/seed_*")
    # A printed command must work as it is.
    tensorboard = "tensorboard" if importlib.util.find_spec("tensorboard") else "pip install tensorboard; tensorboard"
    # Equal to the accuracy if the classes have equally many test images.
    unequal = abs((r.test_balanced_accuracy or r.test_accuracy) - r.test_accuracy) >= UNEQUAL
    balanced = (
        [("balanced", f"{accuracy('test_balanced_accuracy')}, the mean recall of the classes")] if unequal else []
    )
    lines = [
        (
            "test accuracy",
            f"{accuracy('test_accuracy')} ({best}, the best on {r.selected_on}), "
            f"{accuracy('last_test_accuracy')} ({last}); {r.test_examples:,} images",
        ),
        *balanced,
        (
            "trained",
            f"{r.epochs:.4g} epochs in {duration(r.train_seconds)}, {duration(r.compile_seconds)} to compile, "
            f"{r.images_per_second:,.0f} images/s, on {r.devices} x {r.device_kind}, {r.dtype}",
        ),
        ("results", run.results_file),
        ("report", run.report_file if one else f"{run.path}/seed_*/{run.report_file.name}"),
        ("curves", run.curves_file),
        ("TensorBoard", f"{tensorboard} --logdir {shlex.quote(str(logs))}"),
        kept,
    ]
    lines += [("caution", caution) for caution in r.cautions]
    title = f"{r.dataset}, {r.model}, {r.num_params:,} parameters, {seeds}"
    return "\n".join([title, *(f"  {name:15} {line}" for name, line in lines)])
