"""Measure few-shot accuracy: python -m mixer_jax.fewshot --workdir runs/mnist [--dataset kmnist]

The paper's linear few-shot evaluation: ridge regression from frozen features to one-vs-rest targets (±1), in closed
form, with 1, 5, 10 and 25 images per class. The regularisation is chosen on the validation split; the accuracy is
measured on test.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mixer_jax import cli, data
from mixer_jax.config import default_config
from mixer_jax.data import StreamedSplit
from mixer_jax.data.sources import Subset
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, dataset_of, load, over_split, say_layout
from mixer_jax.storage import write_json, writing

L2 = tuple(2.0**i for i in range(-10, 20))


def main(argv: list[str]) -> int:
    """Parse the command line, measure, and return the exit code."""
    values, _ = cli.parse_run(argv, _define_flags, __doc__)
    if not values.shots or not all(re.fullmatch("[1-9][0-9]{0,5}", shots) for shots in values.shots):
        raise UserError(f"--shots={','.join(values.shots)}: give numbers of images per class, such as 1,5,10,25")
    classifier, shots = load(values.workdir, values.checkpoint), sorted(set(map(int, values.shots)))
    with cli.naming_flags():
        dataset = dataset_of(classifier, values.dataset, values.data_dir, values.on_error)
    name = f"{Path(dataset.name).name}_{values.checkpoint}.json"
    output = Path(values.output) if values.output else cli.folder(None, values.workdir, "fewshot") / name
    cli.require_new([output], values.overwrite)
    with cli.naming_flags():
        _fewshot(classifier, dataset, shots, values, output)
    return 0


def _define_flags(define: cli.Define) -> None:
    define.dataset("as config.dataset.name; by default the run's")
    define.list("shots", ["1", "5", "10", "25"], "training images of each class")
    define.integer("seeds", 3, "draws of the training images", lower_bound=1)
    define.integer("batch_size", 512, "images at a time", lower_bound=1)
    define.output("JSON file to write; by default in the run directory")


def _fewshot(
    classifier: Classifier, dataset: ConfigDict, shots: Sequence[int], values: flags.FlagValues, output: Path
) -> None:
    """Measure the few-shot accuracy of a model's features, print a table, and write a JSON file.

    A row of the file has the number of `shots`, the test `accuracies` in percent and the chosen regularisations `l2`,
    one per seed, and the `mean` and `std` of the accuracies; `std` is None for a single seed.
    """
    config, checkpoint = dataset.copy_and_resolve_references(), values.checkpoint
    num_seeds, batch_size = values.seeds, values.batch_size
    if data.selected_on(config) == "test":
        # The regularisation is never chosen on the test images, even if the run's best epoch was.
        config.val_split, config.val_fraction = "", config.val_fraction or default_config().dataset.val_fraction
    channels = classifier.image_shape[2]
    splits = {name: data.open_split(config, name, channels) for name in ("train", "validation", "test")}
    say_layout(splits["test"])
    for name in splits:
        if splits[name].image_shape != classifier.image_shape:
            there, here = splits[name].image_shape, classifier.image_shape
            raise UserError(f"the {name} images are {there}, those of the model {here}")
    label_names = splits["test"].source.label_names
    if odd := sorted(set(label_names) ^ set(splits["train"].source.label_names)):
        raise UserError(f"the classes of the test and the train split differ: {', '.join(odd[:5])}")
    drawn = [_draw(classifier, splits["train"], label_names, shots[-1], seed, batch_size) for seed in range(num_seeds)]
    held_out = [over_split(classifier.features, splits[name], batch_size, name) for name in ("validation", "test")]
    rows = [_row(drawn, held_out, n) for n in shots]
    result = {"dataset": config.name, "checkpoint": checkpoint, "step": classifier.origin.step, "seeds": num_seeds}
    result |= {"test_images": len(splits["test"]), "classes": len(label_names), "shots": rows}
    print(
        f"{config.name}, {result['test_images']:,} test images of {len(label_names)} classes, {num_seeds} seeds; "
        f"{classifier.origin.parameters(checkpoint)}\n\n"
        "| shots | test accuracy (mean ± std) |\n|---|---|"
    )
    for row in rows:
        spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
        print(f"| {row['shots']} | {row['mean']:.2f}{spread}% |")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, result)
    print(f"\n{output}")


def _draw(
    classifier: Classifier, split: StreamedSplit, label_names: Sequence[str], shots: int, seed: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `shots` images of each class; return their features, labels, and ranks among the images of their class."""
    order = np.random.default_rng(seed).permutation(len(split))
    if (known := split.source.labels()) is not None:
        # Only the images that are drawn are read.
        drawn = [order[known[order] == label][:shots] for label in range(len(label_names))]
        if (counts := np.array([len(of_class) for of_class in drawn])).min() < shots:
            raise _too_few(label_names, counts, shots)
        chosen = StreamedSplit(Subset(split.source, np.concatenate(drawn)), split.image_shape)
        features, labels = over_split(classifier.features, chosen, batch_size, "train")
        return features, labels, np.tile(np.arange(shots), len(label_names))
    counts, parts = np.zeros(len(label_names), int), []
    # Stop once every class has enough images, usually long before the end of a large dataset.
    for start in range(0, len(split), batch_size):
        images, labels = split.read(order[start : start + batch_size])
        ranks = np.empty_like(labels)
        for i, label in enumerate(labels):
            ranks[i], counts[label] = counts[label], counts[label] + 1
        kept = ranks < shots
        if kept.any():
            parts.append((classifier.features(images[kept], batch_size), labels[kept], ranks[kept]))
        if counts.min() >= shots:
            features, labels, ranks = (np.concatenate(part) for part in zip(*parts, strict=True))
            return features, labels, ranks
    raise _too_few(label_names, counts, shots)


def _too_few(label_names: Sequence[str], counts: np.ndarray, shots: int) -> UserError:
    rarest, count = label_names[counts.argmin()], counts.min()
    return UserError(f"class {rarest} has only {count} training images, fewer than --shots={shots}")


def _row(drawn: Sequence[tuple], held_out: Sequence[tuple], shots: int) -> dict[str, Any]:
    """Return the results for one number of shots.

    The images for a smaller number of shots are a subset of those for a larger number.
    """
    each = [_solve(features[ranks < shots], labels[ranks < shots], *held_out) for features, labels, ranks in drawn]
    chosen, accuracies = zip(*each, strict=True)
    std = float(np.std(accuracies, ddof=1)) if len(each) > 1 else None
    return {"shots": shots, "mean": float(np.mean(accuracies)), "std": std, "accuracies": accuracies, "l2": chosen}


def _solve(features: np.ndarray, labels: np.ndarray, validation: tuple, test: tuple) -> tuple[float, float]:
    """Return the regularisation that is best on validation, and the test accuracy it gives, in percent."""
    from sklearn.linear_model import RidgeClassifier  # only here: scikit-learn is slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # In float64, on features of mean 0 and variance 1, to targets of -1 and 1; the intercept is not regularised.
    fits = [make_pipeline(StandardScaler(), RidgeClassifier(alpha=l2)).fit(features.astype(float), labels) for l2 in L2]
    best = int(np.argmax([fit.score(*validation) for fit in fits]))
    return L2[best], 100.0 * float(fits[best].score(*test))


if __name__ == "__main__":
    cli.run(main)
