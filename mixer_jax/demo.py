"""Show a trained model in the browser: python -m mixer_jax.demo [--workdir runs/mnist] [--share] [--port 7860]

Drop, paste, photograph or draw an image to see its most probable classes and what each token contributes. Without
--workdir, the model is the one of handwritten digits that comes with the package. Needs Gradio: pip install gradio. In
a notebook, the demo appears in the page itself:
    from mixer_jax import demo; demo.build("runs/mnist").launch(share=False)
"""

import atexit
import importlib.util
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixer_jax import cli
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, load, require_head
from mixer_jax.metrics import probabilities
from mixer_jax.models import MlpMixer
from mixer_jax.reporting.evidence import Evidence
from mixer_jax.reporting.weights import draw_tiles
from mixer_jax.run_directory import RunDirectory

WORKDIR = "mnist"  # the name of a model that comes with the package
TOP = 5
EXAMPLES = 8  # test images to click
CANVAS = 336  # side of a drawing, in pixels
DARK = 0.4  # drawings are inverted by default if the training images' mean is below this; 1 is white


def main(argv: list[str]) -> int:
    """Parse the command line, serve the page until Ctrl-C, and return the exit code."""
    values, _ = cli.parse_run(argv, _define_flags, __doc__, workdir=WORKDIR)
    if not importlib.util.find_spec("gradio"):
        raise UserError("the demo needs a package that is not installed: pip install gradio")
    page = build(values.workdir, values.checkpoint)
    try:
        page.launch(server_port=values.port, share=values.share)
    except OSError as error:
        raise UserError(f"--port={values.port}: {error}") from error
    return 0


def _define_flags(define: cli.Define) -> None:
    define.integer("port", None, "port of the page; by default the first free one from 7860", 1, 65535)
    define.boolean("share", False, "also serve the page at a public link through Gradio's servers, for a week")


def build(workdir: str | Path, checkpoint: str = "best") -> Any:
    """Return the page of a trained model, a `gradio.Blocks`.

    Args:
      workdir: a run directory, or a file, folder or address of weights, as for `inference.load`.
      checkpoint: the checkpoint of a run directory: "best", "latest" or a step.

    Raises:
      UserError: if the model cannot be loaded.
    """
    import gradio

    classifier = load(workdir, checkpoint)
    require_head(classifier)
    dataset, dark = classifier.origin.dataset, np.mean(classifier.preprocessing.mean) < DARK

    def of_file(path: str | None) -> tuple[dict[str, float] | None, Image.Image | None]:
        if path is None:
            return None, None
        try:
            return _told(classifier, classifier.read(path))
        except UserError as error:
            raise gradio.Error(str(error).replace(path, Path(path).name), print_exception=False) from error

    def of_drawing(
        drawing: dict[str, Any] | None, inverted: bool
    ) -> tuple[dict[str, float] | None, Image.Image | None]:
        image = drawing and drawing["composite"]
        if image is None or not np.asarray(image)[..., 3].any():
            return None, None
        pixels = classifier.read(image)
        return _told(classifier, 255 - pixels if inverted else pixels)

    described = ", ".join(filter(None, (dataset and dataset.name, classifier.config.variant))) or "MLP-Mixer"
    with gradio.Blocks(title=f"mixer_jax: {described}", analytics_enabled=False) as page:
        gradio.Markdown(f"# {described}\nClasses: {', '.join(classifier.label_names)}")
        with gradio.Row():
            with gradio.Column():
                with gradio.Tab("Image"):
                    file = gradio.Image(type="filepath", image_mode=None, show_label=False, height=CANVAS)
                    if examples := _examples(workdir):
                        gradio.Examples(examples, file, label="Test images")
                with gradio.Tab("Draw"):
                    inverted = gradio.Checkbox(bool(dark), label="the training images are light on dark")
                    canvas = gradio.Sketchpad(
                        type="pil",
                        show_label=False,
                        canvas_size=(CANVAS, CANVAS),
                        brush=gradio.Brush(default_size=CANVAS // 14, default_color="#000000"),
                        layers=False,
                    )
            with gradio.Column():
                classes = gradio.Label(num_top_classes=TOP, show_label=False)
                gradio.Markdown("What the model sees, and what its tokens do")
                maps = gradio.Image(show_label=False, interactive=False, elem_id="maps")
        # By default, Gradio opens the image itself, of whatever kind, and prints a traceback if that fails.
        file.preprocess = lambda uploaded: uploaded and uploaded.path
        file.change(of_file, file, [classes, maps])
        for changed in (canvas, inverted):
            changed.change(of_drawing, [canvas, inverted], [classes, maps])
    return page


def _examples(workdir: str | Path) -> list[str]:
    """Write some test images of a run to a temporary folder, and return their paths; none without predictions.npz."""
    file = RunDirectory(workdir).predictions_file
    if not file.exists():
        return []
    images, folder = Evidence.load(file).images[:EXAMPLES], tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    files = [f"{folder}/{i}.png" for i in range(len(images))]
    for image, path in zip(images, files, strict=True):
        Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(path)
    return files


def _told(classifier: Classifier, image: np.ndarray) -> tuple[dict[str, float], Image.Image]:
    """Return the probability of each class, and a picture of what the model sees and what its tokens contribute."""
    [predicted] = probabilities(classifier.logits(image[None], 1))
    rows = [("model input", classifier.seen(image)[None] / 255.0)]
    if isinstance(classifier.model, MlpMixer):
        evidence, sizes = classifier.token_maps(image)
        likeliest = np.argsort(-predicted, kind="stable")[:TOP]
        # Relative to the mean of all tokens: after the last block, each token depends on the whole image.
        chosen = np.moveaxis(evidence - evidence.mean((0, 1)), -1, 0)[likeliest]
        rows.append(("what each token adds to a class (white: for, black: against)", _to_one(chosen)))
        sizes = _to_one(sizes - sizes.min((1, 2), keepdims=True))
        rows.append((f"activation magnitude after blocks 1 to {len(sizes)}", sizes[..., None]))
    named = dict(zip(classifier.label_names, predicted.tolist(), strict=True))
    return named, Image.open(BytesIO(draw_tiles(rows, columns=6)))


def _to_one(maps: np.ndarray) -> np.ndarray:
    """Divide each of the maps (n, rows, columns) by its largest absolute value."""
    return maps / np.maximum(np.abs(maps).max((1, 2), keepdims=True), 1e-12)


if __name__ == "__main__":
    cli.run(main)
