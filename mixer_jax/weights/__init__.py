"""Mixer weights in local or remote files, in the layouts of this library, the paper, timm and lucidrains."""

from mixer_jax.weights.download import downloaded
from mixer_jax.weights.files import IN_FOLDER, INDEX, LARGEST_FILE, READERS, read_description, read_file, write_file
from mixer_jax.weights.layouts import COMPUTED_WITH, LAYOUTS, require_same_shapes, to_layout
from mixer_jax.weights.published import PUBLISHED, SHIPPED, Published, of_file, published, unknown
from mixer_jax.weights.recognition import from_layout

__all__ = [
    "COMPUTED_WITH",
    "INDEX",
    "IN_FOLDER",
    "LARGEST_FILE",
    "LAYOUTS",
    "PUBLISHED",
    "READERS",
    "SHIPPED",
    "Published",
    "downloaded",
    "from_layout",
    "of_file",
    "published",
    "read_description",
    "read_file",
    "require_same_shapes",
    "to_layout",
    "unknown",
    "write_file",
]
