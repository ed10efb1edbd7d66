"""The report of a run: report.html, its figures, and the model card."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from mixer_jax.config import flat
from mixer_jax.data import Split, StreamedSplit, selected_on
from mixer_jax.errors import UserError, printable
from mixer_jax.inference import Classifier
from mixer_jax.messages import warn
from mixer_jax.metrics import classification_scores, probabilities
from mixer_jax.models import MlpMixer, name_of
from mixer_jax.records import Results, best_epoch
from mixer_jax.reporting import page
from mixer_jax.reporting.card import model_card
from mixer_jax.reporting.curves import plot_curves, stack_curves
from mixer_jax.reporting.predictions import write_predictions
from mixer_jax.reporting.scores import CLASS_COLUMNS, class_rows, plot_confusion
from mixer_jax.reporting.summary import duration, sentence
from mixer_jax.reporting.text import numbered
from mixer_jax.reporting.weights import draw_calibration, draw_tiles, embedding_filters, units_by_frequency
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import write_text, writing

MISTAKES, OF_A_CLASS, WORST = 24, 6, 5  # mistakes to show in all, and of each of the WORST hardest classes
UNFOLDED = 30  # the most classes whose scores are shown unasked
UNITS, BLOCKS = 64, 3  # token-mixing units to show, of each of the first BLOCKS blocks


def unfinished(run: RunDirectory, classifier: Classifier) -> Results:
    """Return the results of an unfinished run, without test scores.

    Args:
      run: the run directory, with at least one finished epoch.
      classifier: the run's model.
    """
    history, config = run.read_metrics(), run.config()
    best, last = best_epoch(history), history[-1]
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
        cautions=[classifier.origin.unfinished],
        **classifier.origin.ran_on,
    )


def finish(
    run: RunDirectory,
    results: Results,
    classifier: Classifier,
    logits: np.ndarray,
    labels: np.ndarray,
    test: Split | StreamedSplit,
) -> None:
    """Draw the curves of a run and write its report, before results.json exists.

    If the report fails, this warns and returns.

    Args:
      run: the run directory.
      results: of the run.
      classifier: its model, with the parameters of the best epoch.
      logits, labels: (n, classes) and (n,), of all test images.
      test: the test images.
    """
    draw_curves(run, results)
    try:
        keep_predictions(run, logits, labels, test, classifier.label_names)
        write_report(run, classifier, results)
    except Exception as error:  # a failed report must not cost the results
        warn(f"no report: {' '.join(str(error).split()) or type(error).__name__}")


def finish_seeds(run: RunDirectory, directories: Sequence[RunDirectory], results: Results) -> None:
    """Draw the curves of several seeds into one curves.png.

    Args:
      run: the directory that holds all seeds.
      directories: of the seeds.
      results: of the seeds, for the title.
    """
    with writing(run.curves_file):
        title = f"{results.dataset}, {results.model}, {len(directories)} seeds"
        plot_curves([directory.read_metrics() for directory in directories], run.curves_file, title)


def draw_curves(run: RunDirectory, results: Results) -> None:
    """Draw a run's curves.png from its metrics.jsonl."""
    with writing(run.curves_file):
        title = f"{results.dataset}, {results.model}, seed {results.seed}"
        plot_curves([run.read_metrics()], run.curves_file, title)


def keep_predictions(
    run: RunDirectory,
    logits: np.ndarray,
    labels: np.ndarray,
    test: Split | StreamedSplit,
    label_names: Sequence[str],
) -> None:
    """Write predictions.csv and, for the report, predictions.npz.

    Args:
      run: the run directory.
      logits, labels: (n, classes) and (n,), of all test images.
      test: the test images.
      label_names: the class names.
    """
    with writing(run.predictions_table):
        write_predictions(run.predictions_table, [test.name(i) for i in range(len(test))], logits, labels, label_names)
    chosen = _mistakes(logits, labels)
    images, _ = test.read(chosen)
    names = np.array([printable(test.name(i)) for i in chosen], str)
    file = run.predictions_file
    partial = file.with_name(f".{file.name}")
    with writing(file):
        np.savez_compressed(partial, logits=logits, labels=labels, chosen=chosen, images=images, names=names)
        partial.replace(file)


def _mistakes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sorted indices of the most confident mistakes, overall and within the hardest classes."""
    confidence, wrong = probabilities(logits).max(1), logits.argmax(1) != labels
    order = np.argsort(-confidence * wrong, kind="stable")[: wrong.sum()]
    of_class = [order[labels[order] == label][:OF_A_CLASS] for label in np.unique(labels)]
    worst = sorted(of_class, key=lambda found: -np.mean(wrong[labels == labels[found[0]]]) if len(found) else 0.0)
    return np.unique(np.concatenate([order[:MISTAKES], *worst[:WORST]]).astype(int))


def write_report(run: RunDirectory, classifier: Classifier, results: Results) -> Path:
    """Write report.html and, for a finished run, the model card; return the report's path.

    Args:
      run: the run directory, with curves.png and, for test predictions, predictions.npz.
      classifier: the run's model.
      results: of the run, or from `unfinished`.

    Raises:
      UserError: if predictions.npz is damaged, or a file cannot be written.
    """
    config, info = run.config(), run.dataset_info()
    done = results.test_accuracy is not None
    number = f"{results.test_accuracy:.2f}%" if done else f"{results.val_accuracy:.2f}% on validation"
    title = f"{results.dataset}, {results.model}: {number}"
    parts = [page.paragraph(sentence(caution)) for caution in results.cautions]
    parts += [page.table([], _summary(results)), page.heading("Curves")]
    description = "loss, accuracy and learning rate over the epochs"
    parts.append(page.image(run.curves_file.read_bytes(), description, narrow=stack_curves(run.curves_file)))
    if done and run.predictions_file.exists():
        parts += _predictions(run, info["label_names"])
    parts += _weights(classifier)
    settings = [(path, json.dumps(value)) for path, value in flat(config)]
    environment = [(name, str(version)) for name, version in results.versions.items()]
    parts += [page.folded("Config", page.table(["field", "value"], settings))]
    parts += [page.folded("Environment", page.table(["package", "version"], environment))]
    with writing(run.report_file):
        write_text(run.report_file, page.page(title, parts))
        if done:
            write_text(run.card_file, model_card(config, info, results))
    return run.report_file


def _summary(results: Results) -> list[tuple[str, str]]:
    r = results
    best = f"epoch {r.best_epoch}, best on {r.selected_on}"
    scores = [("validation accuracy", f"{r.val_accuracy:.2f}% ({best})")]
    if r.test_accuracy is not None:
        scores = [
            ("test accuracy, best epoch", f"{r.test_accuracy:.2f}% ({best})"),
            *([("balanced test accuracy", f"{r.test_balanced_accuracy:.2f}%")] if r.test_balanced_accuracy else []),
            ("test accuracy, last epoch", f"{r.last_test_accuracy:.2f}%; {r.test_examples:,} images"),
            ("test loss", f"{r.test_loss:.4f}"),
        ]
    return [
        *scores,
        ("model", f"{r.model}, {r.num_params:,} parameters, seed {r.seed}"),
        ("trained", f"{r.epochs:g} epochs, {r.steps:,} steps, in {duration(r.train_seconds)}"),
        ("throughput", f"{r.images_per_second:,.0f} images/s"),
        ("hardware", f"{r.devices} x {r.device_kind}, {r.dtype}"),
        ("data", f"{r.dataset}, fingerprint {r.data_fingerprint}"),
    ]


def _predictions(run: RunDirectory, label_names: list[str]) -> list[str]:
    try:
        with run.predictions_file.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            logits, labels, chosen, images = (file[key] for key in ("logits", "labels", "chosen", "images"))
            names = file["names"] if "names" in file else chosen.astype(str)  # older releases kept none
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise UserError(f"{run.predictions_file} is damaged: without it, there is a report of the rest") from error
    scores = classification_scores(logits, labels, label_names)
    shares, predicted = probabilities(logits), logits.argmax(1)
    places = {int(index): place for place, index in enumerate(chosen)}

    def shown(indices: np.ndarray) -> str:
        captions = [
            f"{label_names[labels[i]]} \u2192 {label_names[predicted[i]]} {100 * shares[i].max():.0f}%, "
            f"{names[places[i]]}"
            for i in indices
        ]
        return page.gallery([images[places[i]] for i in indices], captions)

    worst_first = chosen[np.argsort(-shares[chosen].max(1), kind="stable")]
    confusion = run.path / "confusion.png"
    with writing(confusion):
        title = f"{scores['accuracy']:.2f}% of {len(labels):,} images"
        plot_confusion(scores["confusion"], label_names, confusion, title)
    parts = [page.heading("Confusion"), page.image(confusion.read_bytes(), "confusion matrix")]
    if without_font := numbered(label_names):
        parts.append(page.paragraph(f"No font of this machine can show {', '.join(without_font)}."))
    if len(chosen):
        parts.append(page.heading("Most confident mistakes"))
        parts.append(
            page.paragraph("True class, predicted class, its probability, and the image. All are in predictions.csv.")
        )
        parts.append(shown(worst_first[:MISTAKES]))
    parts.append(page.heading("Hardest classes"))
    classes = {name: row for name, row in scores["per_class"].items() if row["count"]}
    for name in sorted(classes, key=lambda name: classes[name]["accuracy"])[:WORST]:
        of_class = [i for i in worst_first if label_names[labels[i]] == name][:OF_A_CLASS]
        parts.append(page.paragraph(f"{name}: {classes[name]['accuracy']:.1f}% of {classes[name]['count']:,}"))
        parts.append(shown(np.array(of_class, int)))
    rows = class_rows(scores)
    classes = page.table(CLASS_COLUMNS, rows)
    return [
        *parts,
        page.heading("Classes"),
        page.paragraph(
            f"Mean recall of the classes, which is the balanced accuracy: {scores['balanced_accuracy']:.2f}%."
        ),
        classes if len(rows) <= UNFOLDED else page.folded(f"All {len(rows)} classes", classes),
        page.heading("Calibration"),
        page.paragraph(
            f"Expected calibration error {scores['calibration_error']:.2f}%; "
            f"top-5 accuracy {scores['top5_accuracy']:.2f}%."
        ),
        page.image(draw_calibration(scores["calibration"]), "accuracy over confidence"),
    ]


def _weights(classifier: Classifier) -> list[str]:
    model, params = classifier.model, classifier.params
    if not isinstance(model, MlpMixer):
        return []
    parts = []
    if model.token_mixing:
        height, width, _ = classifier.input_shape
        grid = (height // model.patch_size, width // model.patch_size)
        rows = []
        for block in range(min(BLOCKS, model.num_blocks)):
            kernel = np.asarray(params[f"MixerBlock_{block}"]["token_mixing"]["Dense_0"]["kernel"])
            units = units_by_frequency(kernel, grid)
            rows.append((f"block {block + 1}: {min(UNITS, len(units))} of {len(units)} units", units[:UNITS]))
        parts += [
            page.heading("What the token-mixing units look at"),
            page.paragraph(
                "The weights of the first token-mixing layer on the grid of patches, from low to high frequency, each "
                "beside its nearest opposite (as in the paper's figure 5). White is positive, black negative."
            ),
            page.image(draw_tiles(rows), "weights of token-mixing units", narrow=draw_tiles(rows, columns=8)),
        ]
    filters = embedding_filters(np.asarray(params["stem"]["kernel"]))
    caption = f"{min(UNITS, len(filters))} of {len(filters)}, the largest first"
    rows = [(caption, filters[:UNITS])]
    picture = page.image(draw_tiles(rows), "filters", narrow=draw_tiles(rows, columns=8))
    parts += [page.heading("Patch embedding"), picture]
    return parts
