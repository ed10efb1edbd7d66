"""Where commands write: never over what is there already, unless --overwrite says so."""

import os
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory


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


def folder(output: str | None, run: RunDirectory, name: str) -> Path:
    """Return the folder that was given, by default one in the run directory, or here where that cannot be written."""
    if output:
        return Path(output)
    return run.path / name if os.access(run.path, os.W_OK) else Path(run.path.resolve().name) / name
