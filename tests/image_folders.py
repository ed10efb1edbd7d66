"""Image folders for tests, and what is made of them."""

import io
import itertools
import re
from collections import defaultdict

import numpy as np
from PIL import Image

from mixer_jax import data
from mixer_jax.data.folders import ImageFolder
from support import make_config

TEN = "{a,b,c,d,e,f,g,h,i,j}.png"


def block(root, **fields):
    return make_config(
        **{f"dataset__{key}": x for key, x in {"name": "folder", "data_dir": str(root), **fields}.items()}
    )


def look(root, **fields):
    return ImageFolder(block(root, **fields).dataset)


def load(root, **fields):
    return data.load(block(root, **fields).dataset)


def names(pattern):
    """The names that a pattern such as "a/{b,c}.png d.png" stands for."""
    for word in pattern.split():
        parts = re.split(r"\{(.*?)\}", word)
        yield from map("".join, itertools.product(*(part.split(",") for part in parts)))


def encoded(number, suffix=".png"):
    """A tiny image, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".jpe": "JPEG"}.get(suffix.lower(), suffix[1:].upper())
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(root, images, other=None):
    """Write different images, and other files with their content; None is for a folder."""
    for number, name in enumerate(names(images)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number, path.suffix))
    for name, content in (other or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def used(folder, root):
    """The files of each split and class, "SPLIT CLASS"."""
    found = defaultdict(set)
    for split, images in folder.splits.items():
        for image in images:
            found[f"{split} {image.label}"].add(image.path.relative_to(root).as_posix())
    return dict(found)
