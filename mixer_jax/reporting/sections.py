"""The parts of report.html, from the cards at the top to the pictures of the weights."""

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.inference import Classifier
from mixer_jax.metrics import TOP, accuracy_interval, classification_scores, probabilities
from mixer_jax.models import MlpMixer
from mixer_jax.records import Results
from mixer_jax.reporting import charts, page
from mixer_jax.reporting.evidence import MISTAKES, OF_A_CLASS, WORST, Evidence, captions
from mixer_jax.reporting.scores import CLASS_COLUMNS, class_rows, confused_pairs, plot_confusion, similarity_order
from mixer_jax.reporting.summary import duration
from mixer_jax.reporting.weights import draw_tiles, embedding_filters, token_maps, units_by_frequency
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import writing

UNITS, BLOCKS = 64, 3  # token-mixing units to show, of each of the first BLOCKS blocks


def facts(results: Results, config: ConfigDict, evidence: Evidence | None) -> list[tuple[str, str]]:
    """Return the names and values of the cards at the top; `evidence` is None without predictions."""
    r = results
    validation = f"{r.val_accuracy:.2f}%"
    if r.val_examples:
        low, high = accuracy_interval(r.val_accuracy, r.val_examples)
        validation += f", 95% interval {low:.2f}% to {high:.2f}%"
    best = f"epoch {r.best_epoch}, the best on {r.selected_on}"
    scores = [("validation accuracy", f"{r.val_accuracy:.2f}%"), ("chosen", best)]
    if r.test_accuracy is not None:
        low, high = accuracy_interval(r.test_accuracy, r.test_examples)
        scores = [
            ("test accuracy", f"{r.test_accuracy:.2f}%"),
            ("95% interval, over test images", f"{low:.2f}% to {high:.2f}% ({r.test_examples:,} images; one seed)"),
            ("chosen", best),
            ("validation accuracy at that epoch", validation),
            *_on_training(evidence),
            *([("balanced test accuracy", f"{r.test_balanced_accuracy:.2f}%")] if r.test_balanced_accuracy else []),
            ("test accuracy, last epoch", f"{r.last_test_accuracy:.2f}%"),
            ("test loss", f"{r.test_loss:.4f}"),
        ]
    early = f" of {config.epochs:g}" if r.test_accuracy is not None and r.epochs < config.epochs else ""
    epochs = f"{r.epochs:g}{early} epochs{', stopped early' * bool(early)}"
    sizes = []
    if r.train_examples:
        counts = f"{r.train_examples:,} train, {r.val_examples:,} validation, {r.test_examples:,} test"
        sizes = [("images", counts)]
    return [
        *scores,
        *sizes,
        ("model", f"{r.model}, {r.num_params:,} parameters, seed {r.seed}"),
        ("trained", f"{epochs}{f', {r.steps:,} steps' if r.steps else ''}, in {duration(r.train_seconds)}"),
        ("optimiser", _optimiser(config)),
        ("augmentation", _augmentation(config)),
        *([("throughput", f"{r.images_per_second:,.0f} images/s")] if r.images_per_second else []),
        ("hardware", f"{r.devices} x {r.device_kind}, {r.dtype}"),
        ("data", f"{r.dataset}, fingerprint {r.data_fingerprint}"),
        *([("finished", r.finished)] if r.finished else []),
    ]


def _on_training(evidence: Evidence | None) -> list[tuple[str, str]]:
    if evidence is None or evidence.candidates_right < 0:
        return []
    share = 100 * evidence.candidates_right / evidence.candidates
    return [("training accuracy, not augmented", f"{share:.2f}% of {int(evidence.candidates):,} images")]


def _optimiser(config: ConfigDict) -> str:
    optimizer, schedule = config.optimizer, config.schedule.name
    decay = f", weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""
    rate = f"learning rate {optimizer.learning_rate:g}, {schedule}"
    return f"{optimizer.name}, {rate}{decay}, batches of {config.batch_size:,}"


def _augmentation(config: ConfigDict) -> str:
    augment, mixing = config.augment, config.augment.mixing
    parts = [f"{name} {kind}" for name, kind in (("crop", augment.crop), ("flip", augment.flip)) if kind != "none"]
    parts += [augment.automatic] if augment.automatic != "none" else []
    parts += [f"erasing {augment.erasing.probability:g}"] if augment.erasing.probability else []
    for name, alpha in (("mixup", mixing.mixup_alpha), ("cutmix", mixing.cutmix_alpha)):
        parts += [f"{name} {alpha:g}"] if alpha and mixing.probability else []
    mixes = mixing.probability and (mixing.mixup_alpha or mixing.cutmix_alpha)
    parts += [f"mixed until {mixing.until:.0%} of the training"] if mixes and mixing.until < 1 else []
    parts += [f"label smoothing {config.label_smoothing:g}"] if config.label_smoothing else []
    return ", ".join(parts) or "none"


def curves(run: RunDirectory, results: Results, config: ConfigDict) -> list[str]:
    """Return the charts of a run; its curves.png must exist."""
    drawn = charts.curves(run.read_metrics(), run.read_steps(), results.dataset)
    return [
        page.heading("Curves"),
        page.paragraph(_on_training_images(config), "muted"),
        page.charts(drawn, charts.controls(charts.AXES)),
        page.without_scripts(run.curves_file.read_bytes(), "loss, accuracy and learning rate over the epochs"),
    ]


def _on_training_images(config: ConfigDict) -> str:
    """Return a sentence that says on which images the metrics of training and those of validation are computed."""
    augment, mixing, harder = config.augment, config.augment.mixing, []
    if {augment.crop, augment.flip, augment.automatic} != {"none"} or augment.erasing.probability:
        harder.append("augmented images")
    if config.label_smoothing:
        harder.append(f"labels smoothed by {config.label_smoothing:g}")
    if mixing.probability and (mixing.mixup_alpha or mixing.cutmix_alpha):
        when = f" until {mixing.until:.0%} of the training" if mixing.until < 1 else ""
        harder.append(f"mixed images and labels{when}")
    on = f" ({'; '.join(harder)})" if harder else ""
    return f"Training loss and accuracy are means over the steps of an epoch{on}."


def predictions(run: RunDirectory, evidence: Evidence, label_names: list[str]) -> list[str]:
    """Return the parts on the test predictions, and draw confusion.png."""
    scores = classification_scores(evidence.logits, evidence.labels, label_names)
    counts = np.array(scores["confusion"])
    with writing(confusion_file := run.path / "confusion.png"):
        title = f"{scores['accuracy']:.2f}% of {len(evidence.labels):,} images"
        plot_confusion(counts, label_names, confusion_file, title)
    order = similarity_order(counts)
    matrix = page.heading("Confusion") + page.confusion([label_names[i] for i in order], counts[order][:, order])
    matrix += page.without_scripts(confusion_file.read_bytes(), "confusion matrix")
    pairs = confused_pairs(counts, label_names)
    columns = ("class", "predicted as", "images", "share of the class")
    listed = page.heading("Most confused") + page.table(columns, pairs, sortable=True) if pairs else ""
    balanced = f"Mean recall of the classes, which is the balanced accuracy: {scores['balanced_accuracy']:.2f}%."
    if len(label_names) > TOP:
        balanced += f" Top-{TOP} accuracy: {scores['top5_accuracy']:.2f}%."
    balanced += " Recall is followed by its 95% interval; classes are sorted by its upper end."
    parts = [
        page.side_by_side(matrix, listed),
        page.heading("Classes"),
        page.paragraph(balanced),
        page.table(CLASS_COLUMNS, class_rows(scores, intervals=True), sortable=True, cards=True),
    ]
    parts += _mistakes(evidence, label_names, scores)
    calibrated = f"Expected calibration error {scores['calibration_error']:.2f}%."
    bins = [(f"{b['confidence']:.1f}%", f"{b['accuracy']:.1f}%", f"{b['count']:,}") for b in scores["calibration"]]
    of_bins = page.table(("mean confidence", "accuracy", "images"), bins)
    chart = page.charts([charts.calibration(scores["calibration"])])
    return [*parts, page.heading("Calibration"), page.paragraph(calibrated), page.side_by_side(chart, of_bins)]


def _mistakes(evidence: Evidence, label_names: list[str], scores: dict) -> list[str]:
    """Return galleries: mistakes overall and in the hardest classes, right answers, a training batch, token maps."""
    wrong = evidence.wrong[evidence.chosen]
    confidence = probabilities(evidence.logits)[evidence.chosen].max(1)
    worst_first = [int(place) for place in np.argsort(-confidence, kind="stable") if wrong[place]]
    right = [int(place) for place in np.flatnonzero(~wrong)]
    with_nearest = len(evidence.nearest_images) == len(evidence.chosen)

    def gallery(places: list[int]) -> str:
        entries, texts = [], captions(evidence, label_names, places)
        for place, caption in zip(places, texts, strict=True):
            entry = [(evidence.images[place], caption)]
            if with_nearest:
                label, name = label_names[evidence.nearest_labels[place]], evidence.nearest_names[place]
                entry.append((evidence.nearest_images[place], f"nearest training image: {label}, {name}"))
            entries.append(entry)
        return page.gallery(entries, texts)

    parts = []
    beside = (
        f" Beside each, the training image with the nearest features, of {int(evidence.candidates):,} searched."
        if with_nearest
        else ""
    )
    if worst_first:
        said = f"True class → predicted class, its probability, and the image.{beside} All are in predictions.csv."
        parts += [page.heading("Most confident mistakes"), page.paragraph(said), gallery(worst_first[:MISTAKES])]
    classes = scores["per_class"]
    shown = []
    for name, *_ in class_rows(scores)[:WORST]:  # the hardest
        of_class = [i for i in worst_first if label_names[evidence.labels[evidence.chosen[i]]] == name][:OF_A_CLASS]
        if of_class:
            title = f"{name}: {classes[name]['accuracy']:.1f}% of {classes[name]['count']:,}"
            shown += [page.heading(title, 3), gallery(of_class)]
    if shown:
        parts += [page.heading("Hardest classes"), *shown]
    if right:
        parts += [page.heading("Right answers"), gallery(right)]
    if len(evidence.batch_images):
        names = [" + ".join(caption.split("\n")) for caption in evidence.batch_captions]
        entries = [[(image, caption)] for image, caption in zip(evidence.batch_images, names, strict=True)]
        parts += [page.heading("The first batch as the model saw it, augmented"), page.gallery(entries, names)]
    if len(evidence.maps):
        rows = token_maps(evidence)
        names = captions(evidence, label_names, [int(place) for place in evidence.mapped])
        said = (
            "Each row shows the image, what each token adds to the logit of the predicted class, and, for mistakes, "
            "what it adds to that of the true class. White is for the class, black against it, relative to the mean "
            "over the tokens. After the last block, each token depends on the whole image."
        )
        parts += [page.heading("What each token adds"), page.paragraph(said), page.gallery(rows, names)]
    return parts


def weights(classifier: Classifier) -> list[str]:
    """Return the parts on the weights of a Mixer: token-mixing units and patch embedding; none for other models."""
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
                "beside the one closest to its negative, as in the paper's figure 5. White is positive, black negative."
            ),
            page.image(draw_tiles(rows), "weights of token-mixing units", narrow=draw_tiles(rows, columns=8)),
        ]
    filters = embedding_filters(np.asarray(params["stem"]["kernel"]))
    caption = f"{min(UNITS, len(filters))} of {len(filters)}, the largest first"
    rows = [(caption, filters[:UNITS])]
    picture = page.image(draw_tiles(rows), "filters", narrow=draw_tiles(rows, columns=8))
    parts += [page.heading("Patch embedding"), picture]
    return parts
