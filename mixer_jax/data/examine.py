"""Examination of image files before training: which cannot be read, and which are the same, byte for byte."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from mixer_jax.cache import cache_folder, cores
from mixer_jax.data.images import IMAGE_FORMATS, Fit, as_pixels, highest_level, is_turned, problem
from mixer_jax.data.tar_files import DISK, Store
from mixer_jax.messages import say
from mixer_jax.storage import write_json

SMALL = Fit((8, 8), draft=True)  # JPEGs are decoded at a small scale, which shows damage just as decoding in full does
MANY = 2_000  # more new files than this are announced, because examining them takes a while
FORMAT = f"3, Pillow {version('pillow')}"  # of the cache; other releases of Pillow read other files


class Examined(NamedTuple):
    """The result of examining a file, valid while its `Status` stays the same.

    Attributes:
      bytes: the size of the file.
      changed: the time of its last change, in nanoseconds.
      digest: a hash of its content.
      problem: why it cannot be read, or "".
      height, width: in pixels; 0 if it cannot be read.
      level: the highest level of a 16-bit image; 0 for other images.
    """

    bytes: int
    changed: int
    digest: str = ""
    problem: str = ""
    height: int = 0
    width: int = 0
    level: int = 0


def examine(paths: Sequence[Path], root: Path, store: Store = DISK) -> dict[Path, Examined]:
    """Decode image files in parallel, with a progress bar, except those that are unchanged since an earlier call.

    The results are kept in the user's cache folder, in a file for `root`, which is a folder above the images.
    """
    kept = cache_folder("examined") / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.json"
    known, above = _read(kept), f"{root}{os.sep}"
    names = [str(path).removeprefix(above) for path in paths]
    if (new := sum(name not in known for name in names)) > MANY:
        say(f"Examining {new:,} image files; the result is kept for later runs")

    def one(path: Path, name: str) -> Examined:
        before = known.get(name)
        try:
            status = store.status(path)
            if before and (before.bytes, before.changed) == status:
                return before
            content = store.read(path)
        except OSError as error:
            return Examined(0, 0, problem=(error.strerror or "it cannot be read").lower())
        digest = hashlib.blake2b(content, digest_size=12).hexdigest()
        found = Examined(*status, digest)
        try:
            return found._replace(**_properties(content))
        except Exception as error:  # each of Pillow's decoders raises its own exceptions
            return found._replace(problem=problem(content, error))

    found: dict[str, Examined] = {}
    try:
        with ThreadPoolExecutor(cores()) as pool:
            done = pool.map(one, paths, names)
            bar = tqdm(done, "examining", len(paths), unit="images", leave=False, disable=None, delay=1)
            found.update(zip(names, bar, strict=True))
    finally:  # what was examined before an interruption is kept, too
        if any(known.get(name) != x for name, x in found.items()):
            with contextlib.suppress(Exception):  # without it, the files are examined again
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(kept, {"format": FORMAT, "files": known | found})
    return {path: found[name] for path, name in zip(paths, names, strict=True)}


def _read(kept: Path) -> dict[str, Examined]:
    try:
        content = json.loads(kept.read_text())
        return {path: Examined(*x) for path, x in content["files"].items()} if content["format"] == FORMAT else {}
    except Exception:  # no file, or a damaged one
        return {}


def _properties(content: bytes) -> dict[str, Any]:
    """Decode an image file, and return its height, width and highest level, as fields of `Examined`."""
    with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
        width, height = image.size
        if is_turned(image):
            width, height = height, width
        SMALL.reduce(image)
        as_pixels(image, SMALL)
        return {"height": height, "width": width, "level": highest_level(image)}
