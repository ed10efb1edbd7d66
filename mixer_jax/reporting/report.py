"""The report of a run: report.html, its figures, and the model card."""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.config import flat
from mixer_jax.data import Dataset, selected_on
from mixer_jax.errors import in_one_line, printable
from mixer_jax.inference import Classifier
from mixer_jax.messages import warn
from mixer_jax.models import name_of
from mixer_jax.records import Results, best_epoch
from mixer_jax.reporting import page, sections
from mixer_jax.reporting.card import model_card
from mixer_jax.reporting.curves import plot_curves
from mixer_jax.reporting.evidence import Evidence, gather
from mixer_jax.reporting.scores import write_predictions
from mixer_jax.reporting.summary import sentence
from mixer_jax.reporting.tensorboard import write_pictures
from mixer_jax.reporting.weights import draw_tiles
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import write_text, writing


def unfinished(run: RunDirectory, classifier: Classifier) -> Results:
    """Return the results of an unfinished run with at least one finished epoch, without test scores."""
    history, config = run.read_metrics(), run.config()
    best, last = best_epoch(history), history[-1]
    how_far = f"epoch {last.epoch} of {math.ceil(config.epochs)}, not finished"
    if (step := classifier.origin.step) < last.step:
        how_far += f"; the weights shown are those of the newest checkpoint, of step {step:,}"
    return Results(
        seed=config.seed,
        epochs=last.epoch,
        steps=last.step,
        best_epoch=best.epoch,
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        train_seconds=sum(epoch.seconds for epoch in history),
        images_per_second=last.images_per_second,
        dataset=config.dataset.name,
        model=name_of(config.model, classifier.model),
        num_params=classifier.num_params,
        selected_on=selected_on(config.dataset),
        data_fingerprint=run.dataset_info()["fingerprint"],
        cautions=[how_far],
        **classifier.origin.ran_on,
    )


def finish(
    run: RunDirectory,
    results: Results,
    classifier: Classifier,
    logits: np.ndarray,
    labels: np.ndarray,
    dataset: Dataset,
) -> None:
    """Write the curves, the predictions and the report of a run; to be called before results.json is written.

    A failure is only a warning.

    The classifier has the parameters of the best epoch; logits and labels are those of all test images.
    """
    with optional("curves"):
        draw_curves(run, results)
    with optional("report"):
        names = [dataset.test.name(i) for i in range(len(labels))]
        with writing(run.predictions_table):
            write_predictions(run.predictions_table, names, logits, labels, classifier.label_names)
        evidence = gather(classifier, logits, labels, dataset, run.config())
        evidence.save(run.predictions_file)
        write_report(run, classifier, results)
        with optional("pictures for TensorBoard"):
            _write_pictures(run, results, classifier, evidence)


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Turn an error into a warning that `what` is missing: a failed picture must not cost a run its results."""
    try:
        yield
    except Exception as error:
        warn(f"no {what}: {in_one_line(error)}")


def _write_pictures(run: RunDirectory, results: Results, classifier: Classifier, evidence: Evidence) -> None:
    """Write the confusion matrix, the first batch and the parameters for TensorBoard."""
    pictures = {"test/confusion": (run.path / "confusion.png").read_bytes()}
    if len(evidence.batch_images):
        pictures["train/first batch"] = draw_tiles([("the first batch", evidence.batch_images / 255)], columns=6)
    write_pictures(run.tensorboard, results.steps, pictures, classifier.params)


def draw_curves(run: RunDirectory, results: Results, seeds: Sequence[RunDirectory] = ()) -> None:
    """Draw curves.png from the metrics.jsonl of a run or, if it has several seeds, from those of the seeds."""
    which = f"{len(seeds)} seeds" if seeds else f"seed {results.seed}"
    with writing(run.curves_file):
        histories = [one.read_metrics() for one in seeds or [run]]
        plot_curves(histories, run.curves_file, f"{results.dataset}, {results.model}, {which}")


def write_report(run: RunDirectory, classifier: Classifier, results: Results) -> Path:
    """Write report.html, and a finished run's model card if it has none; return the report's path.

    The test predictions of a finished run are shown if it has a predictions.npz.

    Raises:
      UserError: if predictions.npz is damaged, or a file cannot be written.
    """
    config, info = run.config(), run.dataset_info()
    done = results.test_accuracy is not None
    number = f"{results.test_accuracy:.2f}%" if done else f"{results.val_accuracy:.2f}% on validation"
    title = f"{_dataset_name(config)}, {results.model}: {number}"
    evidence = Evidence.load(run.predictions_file) if done and run.predictions_file.exists() else None
    parts = [page.facts(sections.facts(results, config, evidence))]
    parts += [page.paragraph(sentence(caution), "caution") for caution in results.cautions]
    parts += sections.curves(run, results, config)
    if evidence:
        parts += sections.predictions(run, evidence, info["label_names"])
    parts += sections.weights(classifier)
    files = [run.config_file, run.metrics_file, run.steps_file, run.predictions_table]
    files = [file for file in files if file.exists()]  # older releases wrote fewer
    files += [run.results_file, run.card_file] if done else []  # written after the report
    parts += [page.files("In the same folder:", [file.name for file in files])]
    settings = [(path, json.dumps(value)) for path, value in flat(config).items()]
    environment = [(name, str(version)) for name, version in results.versions.items()]
    parts += [page.folded("Config", page.table(["field", "value"], settings))]
    parts += [page.folded("Environment", page.table(["package", "version"], environment))]
    write_text(run.report_file, page.page(title, parts))
    if done and not run.card_file.exists():  # a user may have edited it
        write_text(run.card_file, model_card(config, info, results))
    return run.report_file


def write_weights_report(classifier: Classifier, file: Path) -> None:
    """Write a page about a model without a run, such as one of the paper's, with pictures of its weights."""
    preprocessing = classifier.preprocessing
    pairs = zip(preprocessing.mean, preprocessing.std, strict=True)
    facts = [
        ("model", classifier.config.variant or type(classifier.model).__name__),
        ("parameters", f"{classifier.num_params:,}"),
        ("classes", f"{len(classifier.label_names):,}"),
        ("images", "x".join(map(str, classifier.input_shape))),
        ("pixels, mean and standard deviation", "; ".join(f"{mean:.3g}, {std:.3g}" for mean, std in pairs)),
    ]
    parts = [page.facts(facts), *sections.weights(classifier)]
    write_text(file, page.page(classifier.origin.name, parts))


def _dataset_name(config: ConfigDict) -> str:
    """Return the name of a dataset, or of the folder that it is in."""
    folder = Path(config.dataset.data_dir or ".").resolve().name
    return printable(folder) if config.dataset.name == "folder" and folder else config.dataset.name
