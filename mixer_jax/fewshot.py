"""Few-shot accuracy of a run's features: python -m mixer_jax.fewshot --workdir runs/mnist [--dataset kmnist]

What the paper calls linear few-shot: the trunk stays as it is, and an L2-regularised linear regression from its
pre-logits to -1 and 1 for every class is solved exactly, from 1, 5, 10 and 25 images of each class. Its regularisation
is chosen on the validation split; the test split is scored.
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
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, dataset_of, load, over_split
from mixer_jax.output import define_flags, folder, require_new
from mixer_jax.storage import write_json, writing

L2 = tuple(2.0**i for i in range(-10, 20))


def main(argv: list[str]) -> int:
    """Parses the command line and measures; returns the exit code."""
    values, _ = cli.parse_run(argv, _define_flags, __doc__)
    if not values.shots or not all(re.fullmatch("[1-9][0-9]{0,5}", shots) for shots in values.shots):
        raise UserError(f"--shots={','.join(values.shots)}: give numbers of images a class, such as 1,5,10,25")
    for name in ("seeds", "batch_size"):
        if values[name].value < 1:
            raise UserError(f"--{name}={values[name].value}: must be positive")
    classifier, shots = load(values.workdir, values.checkpoint), sorted(set(map(int, values.shots)))
    dataset = dataset_of(classifier, values.dataset, values.data_dir)
    name = f"{Path(dataset.name).name}_{values.checkpoint}.json"
    output = Path(values.output) if values.output else folder(None, values.workdir, "fewshot") / name
    require_new([output], values.overwrite)
    fewshot(classifier, dataset, values.checkpoint, shots, values.seeds, values.batch_size, output)
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("dataset", None, "as config.dataset.name; by default the run's", flag_values=values)
    flags.DEFINE_string("data_dir", None, "where it lies, as config.dataset.data_dir", flag_values=values)
    flags.DEFINE_list("shots", ["1", "5", "10", "25"], "training images of each class", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "draws of the training images", flag_values=values)
    flags.DEFINE_integer("batch_size", 512, "images at a time", flag_values=values)
    define_flags(values, "JSON file to write; by default in the run directory")


def fewshot(
    classifier: Classifier,
    dataset: ConfigDict,
    checkpoint: str,
    shots: Sequence[int],
    num_seeds: int,
    batch_size: int,
    output: Path,
) -> dict[str, Any]:
    """Measures, prints a table, and writes a JSON file.

    Args:
      classifier: the model.
      dataset: the `dataset` block; its images have the shape of the model's.
      checkpoint: that the model is of: "best", "latest" or a step.
      shots: training images of each class, increasing.
      num_seeds: how often the images are drawn anew.
      batch_size: images at a time.
      output: the JSON file.

    Returns:
      What is in the JSON file: of each number of shots the test `accuracies` in percent by seed, with their `mean` and
      `std`, None of a single seed, and the regularisation `l2` chosen.

    Raises:
      UserError: before anything is written, if the run or the data is not as it should be.
    """
    config = dataset.copy_and_resolve_references()
    if data.selected_on(config) == "test":
        # The regularisation is not chosen on the test images, whatever the run's epoch was.
        config.val_split, config.val_fraction = "", config.val_fraction or default_config().dataset.val_fraction
    splits, label_names = {}, ()
    for name in ("train", "validation", "test"):
        splits[name], label_names = data.open_split(config, name)
        if splits[name].image_shape != classifier.image_shape:
            there, here = splits[name].image_shape, classifier.image_shape
            raise UserError(f"the {name} images are {there}, those of the run {here}")
    drawn = [_draw(classifier, splits["train"], label_names, shots[-1], seed, batch_size) for seed in range(num_seeds)]
    held_out = [over_split(classifier.features, splits[name], batch_size, name) for name in ("validation", "test")]
    rows = [_row(drawn, held_out, n) for n in shots]
    circumstances = {
        "dataset": config.name,
        "checkpoint": checkpoint,
        "step": classifier.origin.step,
        "seeds": num_seeds,
    }
    result = circumstances | {"test_images": len(splits["test"]), "classes": len(label_names), "shots": rows}
    print(
        f"{config.name}, {result['test_images']:,} test images of {len(label_names)} classes, {num_seeds} seeds; "
        f"{checkpoint}, checkpoint of step {classifier.origin.step}\n\n"
        "| shots | test accuracy (mean ± std) |\n|---|---|"
    )
    for row in rows:
        spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
        print(f"| {row['shots']} | {row['mean']:.2f}{spread}% |")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, result)
    print(f"\n{output}")
    return result


def _draw(
    classifier: Classifier, split: StreamedSplit, label_names: Sequence[str], shots: int, seed: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws so many images of each class; returns their pre-logits, labels, and rank in the order of their class."""
    counts, parts = np.zeros(len(label_names), int), []
    order = np.random.default_rng(seed).permutation(len(split))
    # Read until every class is full: of a large set with many classes that is a small part.
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
    raise UserError(f"--shots={shots}: of class {label_names[counts.argmin()]} there are {counts.min()} in training")


def _row(drawn: Sequence[tuple], held_out: Sequence[tuple], shots: int) -> dict[str, Any]:
    """Solves for one number of shots, of which the fewer are always among the more."""
    each = [_solve(features[ranks < shots], labels[ranks < shots], *held_out) for features, labels, ranks in drawn]
    chosen, accuracies = zip(*each, strict=True)
    std = float(np.std(accuracies, ddof=1)) if len(each) > 1 else None
    return {"shots": shots, "mean": float(np.mean(accuracies)), "std": std, "accuracies": accuracies, "l2": chosen}


def _solve(features: np.ndarray, labels: np.ndarray, validation: tuple, test: tuple) -> tuple[float, float]:
    """Returns the regularisation that is best on validation, and the accuracy on test that it comes to, in percent."""
    from sklearn.linear_model import RidgeClassifier  # only here: scikit-learn is slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # In float64, on features of mean 0 and variance 1; the targets are -1 and 1, the intercept is free.
    fits = [make_pipeline(StandardScaler(), RidgeClassifier(alpha=l2)).fit(features.astype(float), labels) for l2 in L2]
    best = int(np.argmax([fit.score(*validation) for fit in fits]))
    return L2[best], 100.0 * float(fits[best].score(*test))


if __name__ == "__main__":
    cli.run(main)
