"""Mixer weights in local or remote files, in the layouts of this library, the paper, timm and lucidrains."""

from mixer_jax.weights.download import local
from mixer_jax.weights.files import LARGEST_FILE, read_description, read_file, write_file
from mixer_jax.weights.layouts import COMPUTED_WITH, LAYOUTS, from_layout, require_same_shapes, to_layout

__all__ = [
    "COMPUTED_WITH",
    "LARGEST_FILE",
    "LAYOUTS",
    "from_layout",
    "local",
    "read_description",
    "read_file",
    "require_same_shapes",
    "to_layout",
    "write_file",
]
