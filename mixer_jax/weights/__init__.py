"""Mixer weights in local or remote files, in the layouts of this library, the paper, timm and lucidrains."""

from mixer_jax.weights.download import downloaded
from mixer_jax.weights.files import (
    IN_FOLDER,
    INDEX,
    LARGEST_FILE,
    READERS,
    read_description,
    read_file,
    write_file,
)
from mixer_jax.weights.layouts import COMPUTED_WITH, LAYOUTS, require_same_shapes, to_layout
from mixer_jax.weights.published import PUBLISHED, Published, of_file, published, unknown
from mixer_jax.weights.recognition import from_layout
from mixer_jax.weights.shipped import shipped, shipped_names

__all__ = [
    "COMPUTED_WITH",
    "INDEX",
    "IN_FOLDER",
    "LARGEST_FILE",
    "LAYOUTS",
    "PUBLISHED",
    "READERS",
    "Published",
    "downloaded",
    "from_layout",
    "of_file",
    "published",
    "read_description",
    "read_file",
    "require_same_shapes",
    "shipped",
    "shipped_names",
    "to_layout",
    "unknown",
    "write_file",
]
