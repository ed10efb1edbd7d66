"""Training images as the model sees them, after augmentation, and pictures that show rows of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.augment import Augment
from mixer_jax.reporting.text import fonts, plain

# A title on the left, images (height, width, 1 or 3) uint8 side by side, and a caption for each.
PictureRow = tuple[str, Sequence[np.ndarray], Sequence[str]]


def augmentation(config: ConfigDict, dataset: data.Dataset, **changes) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return a config's augmentation as a compiled function that returns uint8 images and their targets.

    `changes` replace fields of the `augment` section.
    """
    changed = config.augment.copy_and_resolve_references()
    changed.update(changes)
    augment = Augment(changed, dataset, dataset.num_classes)

    def draw(step, batch, positions):
        images, targets = augment.train(config.seed, step, batch, positions)
        return augment.denormalize(images), targets

    # A few images: optimising the program would take longer than it saves.
    compiled = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})
    return lambda *arguments: jax.device_get(compiled(*arguments))


def augmented_batches(
    config: ConfigDict, dataset: data.Dataset, batches: int, count: int
) -> list[tuple[np.ndarray, list[str]]]:
    """Return the first `count` images of each of the first training batches, as the model sees them.

    For each batch, the images are (count, height, width, channels) uint8, or fewer if the batch is smaller, with a
    caption for each image.
    """
    draw, sampler = augmentation(config, dataset), data.TrainSampler(len(dataset.train), config.batch_size, config.seed)
    # Each example is mixed with its predecessor, the first with the last.
    shown = np.r_[-1, np.arange(min(count, config.batch_size))] % config.batch_size
    drawn = []
    for step in range(batches):
        batch = {key: x[0, shown] for key, x in sampler.batches(step, 1).items()}
        images, labels = dataset.train.read(batch["indices"])
        with jax.default_device(_cpu()):  # a TPU would take longer to compile it
            images, targets = draw(step, batch | {"images": images, "labels": labels}, shown)
        drawn.append((images[1:], [target_caption(dataset, target) for target in targets[1:]]))
    return drawn


def _cpu() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may leave it out
        return None


def target_caption(dataset: data.Dataset, target: np.ndarray) -> str:
    """Return the one or two classes of a target (classes,), the one with the larger weight first."""
    likeliest = [c for c in np.argsort(-target)[:2] if target[c] >= 0.005]
    if len(likeliest) == 1:
        return dataset.label_names[likeliest[0]]
    return "\n".join(f"{dataset.label_names[c]} {target[c]:.2f}" for c in likeliest)


@fonts()
def plot_rows(rows: Sequence[PictureRow], path: Path, title: str) -> None:
    """Draw rows of images as a PNG."""
    from matplotlib.figure import Figure  # here, because it is slow to import

    columns = max(len(images) for _, images, _ in rows)
    figure = Figure(figsize=(1.2 * columns + 1.2, 1.5 * len(rows) + 0.6), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for (name, images, captions), line in zip(rows, panels, strict=True):
        line[0].text(-0.15, 0.5, plain(name), transform=line[0].transAxes, ha="right", va="center", weight="bold")
        for image, caption, panel in zip(images, captions, line, strict=False):
            panel.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
            panel.set_title(plain(caption), fontsize=8, pad=2)
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=100)
