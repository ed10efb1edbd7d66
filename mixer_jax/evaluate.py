"""Evaluate a trained model: python -m mixer_jax.evaluate --workdir runs/digits [--split test] [--checkpoint best]

Prints, and writes as JSON, CSV and PNG: top-1, top-5 and balanced accuracy, loss, calibration and the confusion matrix;
recall, precision and F1 of each class; and the prediction for each image. This needs the images of the split. --workdir
is a run directory, or weights (a file, folder, URL or name) together with --dataset. A folder of images (--dataset
folder) without test images is tested as at the end of training: on its validation images or, without these, on the same
random fraction.
"""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from mixer_jax import cli
from mixer_jax.errors import one_of
from mixer_jax.inference import Classifier, dataset_of, load, open_split, over_split, require_head
from mixer_jax.metrics import classification_scores
from mixer_jax.reporting import describe, plot_confusion, write_classes, write_confusion, write_predictions
from mixer_jax.storage import write_json, writing

WRITTEN = ("evaluation.json", "classes.csv", "predictions.csv", "confusion.csv", "confusion.png")
SPLITS = ("train", "validation", "test")


def main(argv: list[str]) -> int:
    """Parse the command line, evaluate, and return the exit code."""
    values, _ = cli.parse_run(argv, _define_flags, __doc__)
    if values.split not in SPLITS:
        raise one_of("split", values.split, SPLITS)
    output = cli.folder(values.output, values.workdir, f"evaluation/{values.split}_{values.checkpoint}")
    cli.require_new((output / name for name in WRITTEN), values.overwrite)
    classifier = load(values.workdir, values.checkpoint)
    require_head(classifier)
    with cli.naming_flags():
        dataset = dataset_of(classifier, values.dataset, values.data_dir, values.on_error)
        _evaluate(classifier, dataset, values.split, values.checkpoint, values.batch_size, output)
    return 0


def _define_flags(define: cli.Define) -> None:
    define.string("split", "test", "train, validation or test")
    define.dataset("as config.dataset.name; by default the run's")
    define.output("folder for the results; by default in the run directory")
    define.integer("batch_size", 512, "images at a time", lower_bound=1)


def _evaluate(
    classifier: Classifier, dataset: ConfigDict, split: str, checkpoint: str, batch_size: int, output: Path
) -> None:
    """Evaluate a model on a split, write the files named in `WRITTEN` into a folder, and print the scores.

    The scores are printed first: the folder may turn out not to be writable.
    """
    images, name, step = open_split(classifier, dataset, split), dataset.name, classifier.origin.step
    logits, labels = over_split(classifier.logits, images, batch_size, f"{split} images")
    scores = {
        "dataset": name,
        "data_dir": dataset.data_dir,
        "split": split,
        "checkpoint": checkpoint,
        "step": step,
        "platform": jax.devices()[0].platform,
        **classification_scores(logits, labels, classifier.label_names),
    }
    weights = classifier.origin.parameters(checkpoint)
    title = f"{name} {split}, {weights}: {scores['accuracy']:.2f}%"
    how_far = classifier.origin.unfinished and f"; {classifier.origin.unfinished}"
    print(f"{name}, {scores['examples']:,} {split} images; {weights}{how_far}\n{describe(scores)}")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "evaluation.json", scores)
        write_classes(scores, output / "classes.csv")
        names = [images.name(i) for i in range(len(images))]
        write_predictions(output / "predictions.csv", names, logits, labels, classifier.label_names)
        write_confusion(scores["confusion"], classifier.label_names, output / "confusion.csv")
        plot_confusion(scores["confusion"], classifier.label_names, output / "confusion.png", title)
    print(f"  {'results':15} {output}/{', '.join(WRITTEN)}")


if __name__ == "__main__":
    cli.run(main)
