"""The output files of commands; an existing one is overwritten only with --overwrite."""

import os
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from mixer_jax.errors import UserError


def define_flags(values: flags.FlagValues, what: str) -> None:
    """Define the flags --output, with the help text `what`, and --overwrite."""
    flags.DEFINE_string("output", None, what, flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "write over what is there already", flag_values=values)


def require_new(paths: Iterable[Path], overwrite: bool, otherwise: str = "another with --output") -> None:
    """Raise `UserError` if one of the paths exists, unless it is a file and `overwrite` is set."""
    for path in paths:
        if path.exists() and not (overwrite and path.is_file()):
            remedy = "choose" if path.is_dir() else "--overwrite writes over it, or choose"
            raise UserError(f"{path} is there already: {remedy} {otherwise}")


def folder(output: str | None, workdir: str, name: str) -> Path:
    """Return the folder for the results of a command.

    Args:
      output: the value of --output, if given.
      workdir: the run directory, or a file or address of weights.
      name: of the default folder. It is in the run directory if that can be written to, else in a folder of the current
        directory that is named after `workdir`.
    """
    if output:
        return Path(output)
    run = Path(workdir)
    return run / name if run.is_dir() and os.access(run, os.W_OK) else Path(run.resolve().stem) / name
