"""Where commands write: never over what is there already, unless --overwrite says so."""

import os
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from mixer_jax.errors import UserError


def define_flags(values: flags.FlagValues, what: str) -> None:
    """Define --output, which is `what`, and --overwrite."""
    flags.DEFINE_string("output", None, what, flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "write over what is there already", flag_values=values)


def require_new(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise `UserError` if one of the files is there, and not to be overwritten."""
    for path in paths:
        if path.exists() and not (overwrite and path.is_file()):
            remedy = "choose another" if path.is_dir() else "--overwrite writes over it, or choose another"
            raise UserError(f"{path} is there already: {remedy} with --output")


def folder(output: str | None, workdir: str, name: str) -> Path:
    """Return the folder that was given; by default `name` in the run directory, or here if that cannot be written."""
    if output:
        return Path(output)
    run = Path(workdir)
    return run / name if run.is_dir() and os.access(run, os.W_OK) else Path(run.resolve().stem) / name
