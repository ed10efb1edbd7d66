"""Image folders as found on disk: the images of each split and class, and what is left out and why.

If there are no test images, the validation images are used for testing; if there are no validation images either, a
fraction of each class is set aside for testing. Files that cannot be read stop the program or are left out. If there
are many images, only a sample is examined before training, unless damaged files are to be left out.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.arrangement import SPLITS, Arrangement, Image
from mixer_jax.data.examine import Examined, examine
from mixer_jax.data.holdout import by_class
from mixer_jax.data.images import Fit
from mixer_jax.data.listing import NAMED, Listing, some
from mixer_jax.data.size import choose_size, given_size
from mixer_jax.data.sources import FolderSource
from mixer_jax.errors import UserError, printable
from mixer_jax.messages import warn

MOST_EXAMINED = 50_000  # up to this many images, all are examined; beyond it, all only if on_error is "skip" ...
SAMPLE = 2_000  # ... and otherwise about this many, evenly spread
LISTED = 20  # damaged files that are listed


class ImageFolder:
    """The images of a folder, by split.

    Attributes:
      root: the folder that holds the images; it may lie below the one in the config.
      layout: one line that says how the images are arranged.
      splits: the images of "train", "test" and "validation"; a split without images is not a key.
      label_names: the class names, sorted; by value if all are whole numbers.
      bits: the number of bits that the levels of 16-bit images really use, such as 12; as in `Fit`.
      image_size: (height, width) to scale images to; () to leave them as they are.
    """

    def __init__(self, config: ConfigDict):
        """Look through the folder `data_dir` of a `dataset` section.

        Raises:
          UserError: if the section is invalid, the folder cannot be read, or no arrangement of `data.arrangement` is
            recognised.
        """
        root = Path(os.path.expanduser(config.data_dir))
        if not os.path.isdir(root):
            what = f"{root} is not a folder" if os.path.exists(root) else f"there is no folder {root}"
            raise UserError(f"{what}: give the folder of the images with config.dataset.data_dir=DATA_DIR")
        self._listing = Listing(root)
        self._arrangement = Arrangement(config, self._listing)
        self.root, self.layout = self._listing.root, self._arrangement.layout
        images = self._arrangement.images
        self._examined = self._examine(images, config.on_error)
        self._all_examined = len(self._examined) == len({image.path for image in images})
        self._damaged = {path: found.problem for path, found in self._examined.items() if found.problem}
        if config.on_error == "skip":
            for path in self._damaged:
                self._listing.leave_out(path, "damaged")
            images = [image for image in images if image.path not in self._damaged]
        if not images:
            raise self._arrangement.nothing("images")
        self._sizes = [(x.height, x.width) for x in self._examined.values() if not x.problem]
        given = given_size(config.image_size)
        self.image_size = choose_size(self._sizes) if given is None else given
        level = max((found.level for found in self._examined.values()), default=0)  # 0 if none has 16 bits
        self.bits = config.bits or (min(max(level.bit_length(), 8), 16) if level else 16)
        self.splits = self._split(images, config)
        validated = "validation" in self.splits or config.val_split == config.test_split
        self._held_out = "" if validated else f"; validation {100 * config.val_fraction:g}% of train"
        self.label_names = self._in_order({image.label for found in self.splits.values() for image in found})
        known = {image.label for image in self.splits.get("train", [])}
        if known and (odd := [name for name in self.label_names if name not in known]):
            raise UserError(
                f"{self.root}: {some(odd)} {'has' if len(odd) == 1 else 'have'} images, but none for training: "
                "move some to the training images, or leave the class out"
            )

    def source(self, split: str, fit: Fit) -> FolderSource:
        """Return the source of a split, by its name in `splits`.

        Raises:
          UserError: if there are no images for it, or one of them is damaged.
        """
        if split not in self.splits:
            raise self._arrangement.missing(split)
        images = self.splits[split]
        if any(image.path in self._damaged for image in images):
            raise self._damage()
        numbers = {name: i for i, name in enumerate(self.label_names)}
        labels = np.array([numbers[image.label] for image in images])
        return FolderSource(
            tuple(image.path for image in images),
            labels,
            self.label_names,
            fit,
            self._listing.top,
            self._arrangement.store,
            layout=self.layout,
        )

    def named(self, config: ConfigDict) -> ConfigDict:
        """Return a copy of the `dataset` section whose split names are keys of `splits`."""
        config = config.copy_and_resolve_references()
        on_test, same = config.val_split == config.test_split, config.train_split == config.test_split
        config.train_split, config.test_split = "train", "train" if same else "test"
        separate = "validation" if "validation" in {*self.splits, *self._arrangement.given} else ""
        config.val_split = config.test_split if on_test else separate
        return config

    def lines(self) -> list[str]:
        """Return what was found: the arrangement, the classes and their images in each split, and what is left out."""
        counts = {split: Counter(image.label for image in images) for split, images in self.splits.items()}
        listed = "; ".join(
            f"{split} {count.total():,} ({some([f'{name} {count[name]:,}' for name in self.label_names])})"
            for split, count in counts.items()
        )
        classes = "1 class" if len(self.label_names) == 1 else f"{len(self.label_names):,} classes"
        lines = [
            f"Images in {printable(self.root)}: {self.layout}",
            f"  {classes}: {listed}{self._held_out}",
            f"  {self._scaling()}",
            f"  left out: {'; '.join(self._listing.reasons()) or 'nothing'}",
        ]
        if not self._all_examined:
            lines.append(
                f"  only {len(self._examined):,} images were examined for damaged and equal files: "
                "config.dataset.on_error=skip examines all"
            )
        return lines

    def _scaling(self) -> str:
        """Return the sizes of the images, and what becomes of them."""
        if not self._sizes:
            return "no image that can be read"
        ranges = [
            f"{min(side)} to {max(side)}" if len({*side}) > 1 else f"{side[0]}"
            for side in zip(*self._sizes, strict=True)
        ]
        bits = f"; 16-bit levels as {self.bits} bits" if self.bits < 16 else ""
        if self.image_size in ((), *{*self._sizes}) and len({*self._sizes}) == 1:
            return f"{ranges[1]}x{ranges[0]} pixels, unchanged{bits}"
        to = f"scaled and cropped to {self.image_size[1]}x{self.image_size[0]}" if self.image_size else "unchanged"
        return f"{ranges[1]} pixels wide, {ranges[0]} high, {to}{bits}"

    def cautions(self) -> tuple[str, ...]:
        """Return warnings about images that are left out, and about identical images."""
        return (*(f"left out: {line}" for line in self._listing.reasons(other_files=False)), *self._equal())

    def _damage(self) -> UserError:
        damaged = [f"{self._listing.below(path)}: {problem}" for path, problem in self._damaged.items()]
        number, them = f"{len(damaged):,} of {len(self._examined):,}", "it" if len(damaged) == 1 else "them"
        return UserError(
            f"{number} image files in {self._listing.top} cannot be read ({some(damaged)}): repair or delete {them}, "
            f"or train without {them} with config.dataset.on_error=skip"
        )

    def _examine(self, images: Sequence[Image], on_error: str) -> dict[Path, Examined]:
        """Examine the files; warn of damaged ones if they are left out, or if an error cannot list so many."""
        if len(images) > MOST_EXAMINED and on_error == "stop":
            images = images[:: max(len(images) // SAMPLE, 1)]
        examined = examine([image.path for image in images], self._listing.top, self._arrangement.store)
        problems = [f"{self._listing.below(path)}: {x.problem}" for path, x in examined.items() if x.problem]
        if on_error == "skip" or len(problems) > NAMED:
            for line in problems[:LISTED]:
                warn(line)
            if len(problems) > LISTED:
                warn(f"{len(problems) - LISTED:,} more files cannot be read")
        return examined

    def _equal(self) -> Iterator[str]:
        """Yield warnings about files that are equal, byte for byte, in train and another split, or in two classes."""
        splits = {id(images): split for split, images in self.splits.items()}  # the same list may be two splits
        places: dict[str, list[tuple[str, Image]]] = {}
        for split in splits.values():
            for image in self.splits[split]:
                if image.path in self._examined and (digest := self._examined[image.path].digest):
                    places.setdefault(digest, []).append((split, image))
        several = [found for found in places.values() if len(found) > 1]
        for pair in combinations(SPLITS, 2):
            if both := [found for found in several if {*pair} <= {split for split, _ in found}]:
                one, other = pair[1], "training" if pair[0] == "train" else pair[0]
                yield f"the same files, byte for byte, are {one} and {other} images: {self._pairs(both)}"
        if torn := [found for found in several if len({image.label for _, image in found}) > 1]:
            yield f"the same files, byte for byte, are in different classes: {self._pairs(torn)}"

    def _pairs(self, groups: Sequence[Sequence[tuple[str, Image]]]) -> str:
        return some([" = ".join(self._listing.below(image.path) for _, image in group[:NAMED]) for group in groups])

    def _split(self, images: list[Image], config: ConfigDict) -> dict[str, list[Image]]:
        """Return the images by split; without test images, use the validation images, or else a part of each class."""
        splits = {split: [image for image in images if image.split == split] for split in SPLITS}
        undecided = [image for image in images if not image.split]
        if splits["train"]:
            for image in undecided:
                self._listing.leave_out(image.path, "in no split")
        else:
            splits["train"] = undecided
        if config.train_split == config.test_split:
            splits["test"] = splits["train"]
        if splits["train"] and not splits["test"] and "test" not in self._arrangement.given:
            if splits["validation"] and "validation" not in self._arrangement.given:
                splits["test"], splits["validation"] = splits["validation"], []
                self.layout += "; there are no test images, so the validation images are used for testing"
            else:
                splits["train"], splits["test"] = self._drawn(splits["train"], config.test_fraction)
                percent = f"{100 * config.test_fraction:g}%"
                self.layout += f"; {percent} of each class is drawn for testing, the same in every run"
        return {split: found for split, found in splits.items() if found}

    def _drawn(self, images: Sequence[Image], fraction: float) -> tuple[list[Image], list[Image]]:
        """Draw the given fraction of each class; return the images that remain, and those drawn.

        In each class, the images with the lowest hashes are drawn. When images are added later, those already in the
        folder therefore mostly stay in the group they were in, drawn or not drawn, unless the total now exceeds
        `MOST_EXAMINED`.
        """
        _, labels = np.unique([image.label for image in images], return_inverse=True)
        order = np.array(sorted(range(len(images)), key=lambda i: self._hash(images[i].path)))
        wanted = round(len(images) * fraction)
        drawn = set(by_class(order, labels, wanted).tolist()) if 0 < wanted < len(images) else set()
        if not drawn:
            raise UserError(
                f"config.dataset.test_fraction={fraction} of {len(images)} images leaves no test or no training image: "
                "give another fraction, or more images"
            )
        return [x for i, x in enumerate(images) if i not in drawn], [images[i] for i in sorted(drawn)]

    def _hash(self, path: Path) -> str:
        """Return a hash of the content of a file, so that copies mostly stay together.

        If not all images were examined, return a hash of the path instead.
        """
        digest = self._examined[path].digest if self._all_examined else ""
        return digest or hashlib.blake2b(self._listing.below(path).encode()).hexdigest()

    def _in_order(self, names: Collection[str]) -> tuple[str, ...]:
        """Return class names in order.

        Raises:
          UserError: if a name cannot be printed.
        """
        if odd := [name for name in sorted(names) if printable(name) != name]:
            raise UserError(f"{self.root}: the name of the class {printable(odd[0])} cannot be printed: rename it")
        if all(re.fullmatch(r"\d{1,18}", name) for name in names):
            return tuple(sorted(names, key=lambda name: (int(name), name)))
        return tuple(sorted(names))
