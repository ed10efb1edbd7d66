"""Draw what a config's augmentation does: python -m mixer_jax.preview --config configs/cifar10.py [--output FILE.png]

The picture has a row for each operation of RandAugment or AutoAugment with its magnitudes, a row for each other stage
of augmentation, and batches as the model sees them, with their labels.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import cli, data
from mixer_jax.augment import Magnitudes, apply
from mixer_jax.augment.automatic import POLICIES
from mixer_jax.augment.operations import INDEX, SIGNED, WITH_MAGNITUDE
from mixer_jax.errors import UserError
from mixer_jax.reporting.augmented import PictureRow, augmentation, augmented_batches, plot_rows, target_caption
from mixer_jax.storage import writing

COLUMNS = 9
BATCH_ROWS = 4
# The other stages of augmentation: settings that turn each off, and settings that always apply it.
OFF = {"crop": "none", "flip": "none", "erasing": {"probability": 0.0}, "mixing": {"probability": 0.0}}
SURE = {"erasing": {"probability": 1.0}, "mixing": {"probability": 1.0}}


def main(argv: list[str]) -> int:
    """Parse the command line, draw, and return the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__)
    path = Path(values.output or f"previews/{name}.png")
    if path.suffix.lower() != ".png":
        raise UserError(f"--output={path}: a preview is a PNG: the name must end in .png")
    cli.require_new([path], values.overwrite)
    config.dataset.memory_budget_gib = 0.0  # streamed, because only a few images are read
    dataset = data.load(config.dataset)
    augmentation(config, dataset)  # checks the policy
    print("Compiling the augmentation, stage by stage", flush=True)
    rows = [*_operations(config, dataset), *_stages(config, dataset)]
    for number, (images, captions) in enumerate(augmented_batches(config, dataset, BATCH_ROWS, COLUMNS), 1):
        rows.append((f"batch {number}", list(images), captions))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_rows(rows, path, f"{dataset.name}: the augmentation of {values.config}")
    print(f"wrote {path}")
    return 0


def _define_flags(define: cli.Define) -> None:
    define.output("PNG to write; by default previews/<config>.png")


def _operations(config: ConfigDict, dataset: data.Dataset) -> Iterator[PictureRow]:
    """Yield a row for each operation: one image at magnitudes from the most negative to the most positive."""
    if config.augment.automatic == "none":
        return
    image = dataset.train.read([0])[0][0]
    policy = POLICIES[config.augment.automatic]
    magnitudes = Magnitudes(*image.shape[:2], policy.num_bins)
    signed_bins = np.round(np.linspace(1 - policy.num_bins, policy.num_bins - 1, COLUMNS)).astype(int)
    compiled = jax.jit(
        lambda operation, bin_, negative: apply(jnp.asarray(image), operation, bin_, negative, magnitudes)
    )
    for name in policy.operations:
        bins = signed_bins if name in SIGNED else signed_bins[signed_bins >= 0] if name in WITH_MAGNITUDE else [0]
        images = [np.asarray(compiled(INDEX[name], abs(b), b < 0)) for b in bins]
        values = [magnitudes.value(name, abs(b), -1 if b < 0 else 1) for b in bins]
        captions = [f"{b}: {value:.3g}" for b, value in zip(bins, values, strict=True)]
        yield name, images, captions if name in WITH_MAGNITUDE else [""]


def _stages(config: ConfigDict, dataset: data.Dataset) -> Iterator[PictureRow]:
    """Yield a row for each other stage of augmentation, applied alone: an unchanged image, then random draws."""
    images, labels = dataset.train.read([0, len(dataset.train) - 1])  # of two classes, if they are sorted by class
    batch = {"images": images, "labels": labels, "indices": np.arange(2), "epochs": np.zeros(2, np.int32)}
    nothing = OFF | {"automatic": "none"}
    plain, _ = augmentation(config, dataset, **nothing)(0, batch, np.arange(2))
    for name in OFF:
        if config.augment[name] == "none" or (name in SURE and not _happens(config.augment[name])):
            continue
        draw = augmentation(config, dataset, **nothing | {name: SURE.get(name, config.augment[name])})
        drawn = [draw(step, batch | {"epochs": batch["epochs"] + step}, np.arange(2)) for step in range(COLUMNS - 1)]
        captions = [target_caption(dataset, targets[0]) if name == "mixing" else "" for _, targets in drawn]
        yield name, [plain[0], *(images[0] for images, _ in drawn)], ["as it is", *captions]


def _happens(stage: ConfigDict) -> bool:
    return bool(stage.probability and (stage.get("mixup_alpha", 1) or stage.get("cutmix_alpha", 1)))


if __name__ == "__main__":
    cli.run(main)
