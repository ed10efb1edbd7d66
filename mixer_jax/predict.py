"""Classify images: python -m mixer_jax.predict --workdir runs/digits IMAGE_OR_FOLDER ... [--output FILE.csv]

Images of any size and kind are converted to the size and channels of the model. A folder stands for all images in it
and its subfolders, except hidden ones. Each image gets a table if there are at most ten, else a line. --output writes a
CSV or JSON file instead. Files that cannot be read are named and skipped; the exit code is then 1.
"""

import contextlib
import csv
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mixer_jax import cli
from mixer_jax.data import IMAGE_SUFFIXES
from mixer_jax.data.listing import Listing
from mixer_jax.errors import UserError, printable
from mixer_jax.inference import Classifier, load, require_head
from mixer_jax.messages import warn
from mixer_jax.storage import replacing, writing

FEW = 10  # the largest number of images that get a table each
Prediction = list[tuple[str, float]]


def main(argv: list[str]) -> int:
    """Parse the command line, predict, and return the exit code."""
    values, paths = cli.parse_run(argv, _define_flags, __doc__, num_paths=None)
    output = Path(values.output) if values.output else None
    if output and output.suffix not in (".csv", ".json"):
        raise UserError(f"--output={output}: give a name that ends in .csv or .json")
    if output:
        cli.require_new([output], values.overwrite)
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise UserError(f"no images in {', '.join(paths)}: looked for {', '.join(IMAGE_SUFFIXES)}")
    classifier = load(values.workdir, values.checkpoint)
    require_head(classifier)
    if how_far := classifier.origin.unfinished:
        warn(f"{values.workdir}: {how_far}")
    top = min(values.top, len(classifier.label_names))
    return _predict(classifier, files, output, top, min(values.batch_size, len(files)))


def _define_flags(define: cli.Define) -> None:
    define.output("file to write all predictions to, .csv or .json")
    define.integer("top", 5, "number of most probable classes of each image", lower_bound=1)
    define.integer("batch_size", 64, "images at a time", lower_bound=1)


def _files(path: Path) -> list[Path]:
    """Return the file itself, or all images in a folder and its subfolders, except hidden ones."""
    if os.path.isdir(path):
        return sorted(Listing(path).images(path, deep=True))
    if not os.path.exists(path):
        raise UserError(f"there is no image or folder {path}")
    return [path]


def _predict(classifier: Classifier, files: Sequence[Path], output: Path | None, top: int, batch_size: int) -> int:
    """Print the `top` most probable classes of every image, or write them to a file; return the exit code."""

    def read(file: Path) -> np.ndarray | UserError:
        try:
            return classifier.read(file)
        except UserError as error:
            return error

    bad = 0
    with contextlib.ExitStack() as stack:
        on_console = _tell_few if len(files) <= FEW else _tell_many
        tell = stack.enter_context(_written(output, top)) if output else on_console
        bar = stack.enter_context(tqdm(total=len(files), unit=" images", leave=False, disable=None))
        pool = stack.enter_context(ThreadPoolExecutor())
        for start in range(0, len(files), batch_size):
            batch, images = files[start : start + batch_size], {}
            for i, image in enumerate(pool.map(read, batch)):
                if isinstance(image, UserError):
                    tqdm.write(f"skipped: {image}", file=sys.stderr)
                else:
                    images[i] = image
            if images:
                logits = classifier.logits(np.stack([*images.values()]), batch_size)
                for i, prediction in zip(images, classifier.likeliest(logits, top), strict=True):
                    tell(batch[i], prediction)
            bad += len(batch) - len(images)
            bar.update(len(batch))
    if output or bad:
        where = f", written to {output}" if output else ""
        print(f"{len(files) - bad:,} of {len(files):,} images{where}", file=sys.stdout if output else sys.stderr)
    return 1 if bad else 0


def _tell_few(name: Path, prediction: Prediction) -> None:
    width = max(len(label) for label, _ in prediction)
    lines = [
        f"  {label:{width}}  {100 * probability:6.2f}%  {'█' * round(30 * probability)}".rstrip()
        for label, probability in prediction
    ]
    tqdm.write("\n".join([printable(name), *lines]))  # at once: each write draws the bar again


def _tell_many(name: Path, prediction: Prediction) -> None:
    label, probability = prediction[0]
    tqdm.write(f"{100 * probability:6.2f}%  {label}  {printable(name)}")


@contextlib.contextmanager
def _written(path: Path, top: int) -> Iterator[Callable[[Path, Prediction], None]]:
    """Yield a function that writes predictions to a file, which appears only when it is complete."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # A file name can hold bytes that are not valid text; they are written unchanged.
    with replacing(path) as new, new.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        if path.suffix == ".csv":
            writer = csv.writer(file)
            ranks = range(1, top + 1)
            writer.writerow(["file", *(f"{what}_{i}" for i in ranks for what in ("class", "probability"))])

            def tell(name: Path, prediction: Prediction) -> None:
                writer.writerow([name, *(x for label, p in prediction for x in (label, f"{p:.6g}"))])

            yield tell
        else:
            separators = itertools.chain(["\n"], itertools.repeat(",\n"))

            def tell(name: Path, prediction: Prediction) -> None:
                file.write(next(separators) + json.dumps({"file": str(name), "classes": dict(prediction)}))

            file.write("[")
            yield tell
            file.write("\n]\n")


if __name__ == "__main__":
    cli.run(main)
