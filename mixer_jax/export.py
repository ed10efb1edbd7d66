"""Export a trained model: python -m mixer_jax.export --workdir runs/digits [--format stablehlo|onnx|onnx_int8]

The file maps any number of images (batch, height, width, channels) uint8, of the size the model was trained on, to
logits. It includes the preprocessing.

`stablehlo` is for JAX on CPU, GPU and TPU, without this package:
    jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read())).call(images)
`onnx` is for onnxruntime and others, written by PyTorch's exporter. `onnx_int8` is the same after onnxruntime's dynamic
quantisation: 8-bit weights, and activations quantised at run time. Both need: pip install torch onnxscript
onnxruntime.

A `stablehlo` or `onnx` file is kept only if its logits differ from the model's by at most 1e-4 (relative to the largest
logit, if that is above 1). The logits are compared on test images, or on random pixels if there are none. `onnx_int8`
is kept if it loses at most half a percentage point of accuracy on test images; without test images, it is kept
unchecked. --benchmark also measures the file's speed.
"""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from absl import flags

from mixer_jax import cli
from mixer_jax.benchmarks.rounds import Work, measure, spread
from mixer_jax.data import StreamedSplit
from mixer_jax.errors import UserError, one_of
from mixer_jax.inference import Classifier, dataset_of, load, open_split, require_head
from mixer_jax.messages import warn
from mixer_jax.storage import write_json, writing

FORMATS = {"stablehlo": "model.stablehlo", "onnx": "model.onnx", "onnx_int8": "model_int8.onnx"}
LABELS = "labels.json"  # the same for every format
TOLERANCE = 1e-4  # of logits, relative to the largest if that is above 1
INT8_MAY_COST = 0.5  # percentage points of accuracy
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
BATCH_SIZE, RANDOM_IMAGES, LATENCY_BATCHES, ROUNDS = 256, 64, (1, 64), 9
Function = Callable[[np.ndarray], np.ndarray]


def main(argv: list[str]) -> int:
    """Parse the command line, export, and return the exit code."""
    values, _ = cli.parse_run(argv, _define_flags, __doc__)
    if values.format not in FORMATS:
        raise one_of("format", values.format, FORMATS)
    needed = [] if values.format == "stablehlo" else ["torch", "onnx", "onnxscript", "onnxruntime"]
    if missing := [name for name in needed if not importlib.util.find_spec(name)]:
        raise UserError(f"--format={values.format} needs more packages: pip install {' '.join(missing)}")
    output = cli.folder(values.output, values.workdir, "export")
    cli.require_new([output / FORMATS[values.format]], values.overwrite)
    classifier = load(values.workdir, values.checkpoint)
    require_head(classifier)
    if not _holds(output / LABELS, classifier.label_names):
        cli.require_new([output / LABELS], values.overwrite)
    split, name = _test_images(classifier, values)
    return _export(classifier, values, split, name, output)


def _define_flags(define: cli.Define) -> None:
    define.string("format", "stablehlo", "stablehlo, onnx or onnx_int8")
    define.dataset("dataset to check the exported file on, as config.dataset.name")
    define.integer("num_images", 1000, "maximum number of test images to check the exported file on", lower_bound=1)
    define.boolean("benchmark", False, "compare the speed of the exported file with the model's")
    define.output("folder for the file; by default export/ in the run directory")


def _holds(file: Path, label_names: tuple[str, ...]) -> bool:
    """Return whether labels.json holds these names already, as after the export to another format."""
    try:
        return json.loads(file.read_text()) == list(label_names)
    except (OSError, ValueError):
        return False


def _test_images(classifier: Classifier, values: flags.FlagValues) -> tuple[StreamedSplit | None, str]:
    """Return the test split and the name of its dataset; None and "" after a warning if the split cannot be opened."""
    try:
        with cli.naming_flags():
            config = dataset_of(classifier, values.dataset, values.data_dir, values.on_error)
            return open_split(classifier, config, "test"), config.name
    except UserError as error:
        if values.dataset or values.data_dir or values.on_error:
            raise
        warn(f"no test images to compare on, only random pixels: {error}")
        return None, ""


def _export(
    classifier: Classifier, values: flags.FlagValues, split: StreamedSplit | None, name: str, output: Path
) -> int:
    """Export a model to a file, check the file, and write the class names to labels.json next to the file.

    The file is checked on at most --num_images of the test images of the dataset `name`, or on random pixels if there
    are none. If the check fails, the file is discarded, and the exit code is 1.
    """
    format, file = values.format, output / FORMATS[values.format]
    print("Compiling", flush=True)
    partial = file.with_name(f".partial.{file.name}")
    try:
        with writing(file):
            output.mkdir(parents=True, exist_ok=True)
            others = _stablehlo(classifier, partial) if format == "stablehlo" else _onnx(classifier, partial, format)
        functions = {"mixer_jax": lambda images: classifier.logits(images, len(images)), **others}
        sizes, count = " x ".join(map(str, classifier.image_shape)), len(classifier.label_names)
        how_far = classifier.origin.unfinished
        print(f"input: batch of {sizes} uint8; output: {count} logits{how_far and f'; from a run at {how_far}'}")
        if split is not None:
            # Spread over the split, which may be sorted by class.
            images, labels = split.read(np.linspace(0, len(split) - 1, min(values.num_images, len(split))).astype(int))
            print(f"  compared on {len(images):,} test images of {name}")
        else:
            shape = (RANDOM_IMAGES, *classifier.image_shape)
            images, labels = np.random.default_rng(0).integers(0, 256, shape, np.uint8), None
            print(f"  compared on {len(images)} images of random pixels")
        if not _same(functions["mixer_jax"], functions[format], images, labels, int8=format == "onnx_int8"):
            print("error: too far from the model: the file is not kept", file=sys.stderr)
            return 1
        if values.benchmark:
            _tell_latency(functions, images)
        with writing(file):
            partial.replace(file)
            write_json(output / LABELS, list(classifier.label_names))
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    print(f"wrote {file}, {file.stat().st_size / 2**20:.2f} MiB, and {LABELS} in the same folder")
    return 0


def _stablehlo(classifier: Classifier, path: Path) -> dict[str, Function]:
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *classifier.image_shape), jnp.uint8)
    path.write_bytes(jax.export.export(jax.jit(classifier.traceable), platforms=PLATFORMS)(images).serialize())
    call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    return {"stablehlo": lambda images: np.asarray(call(images))}


def _onnx(classifier: Classifier, path: Path, format: str) -> dict[str, Function]:
    import onnxruntime
    import torch

    from mixer_jax.interop.onnx_file import FromPixels, write_onnx

    preprocessing = classifier.preprocessing
    network = FromPixels(
        classifier.model, classifier.params, classifier.scaling(), preprocessing.mean, preprocessing.std
    )
    write_onnx(network, classifier.image_shape, path, int8=format == "onnx_int8")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def in_torch(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(images)).numpy()

    return {format: lambda images: session.run(["logits"], {"images": images})[0], "PyTorch": in_torch}


def _same(ours: Function, exported: Function, images: np.ndarray, labels: np.ndarray | None, int8: bool) -> bool:
    """Print by how much logits and, with labels, accuracy differ; return whether the difference is acceptable."""
    batches = [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]
    expected, found = (np.concatenate([run(batch) for batch in batches]) for run in (ours, exported))
    difference, largest = np.abs(found - expected).max(), np.abs(expected).max()
    print(f"  logits differ by at most {difference:.2g}; the largest is {largest:.3g}")
    close = difference <= TOLERANCE * max(1.0, largest)
    if labels is None:
        return close or int8
    before, after = (100 * np.mean(logits.argmax(1) == labels) for logits in (expected, found))
    print(f"  accuracy: {after:.2f}% exported, {before:.2f}% before")
    return before - after <= INT8_MAY_COST if int8 else close


def _tell_latency(functions: dict[str, Function], images: np.ndarray) -> None:
    for batch_size in LATENCY_BATCHES:
        batch = images[np.arange(batch_size) % len(images)]
        works = {
            name: Work(lambda times, run=run, batch=batch: [run(batch) for _ in range(times)])
            for name, run in functions.items()
        }
        seconds = {name: spread(taken) for name, taken in measure(works, ROUNDS, at_least=0.05).items()}
        times = ", ".join(
            f"{name} {1e3 * s['median']:.3g} ms ({1e3 * s['min']:.3g} to {1e3 * s['max']:.3g})"
            for name, s in seconds.items()
        )
        print(f"  {batch_size} at once, {ROUNDS} rounds, JAX on {jax.devices()[0].platform}: {times}")


if __name__ == "__main__":
    cli.run(main)
