"""Config files: those shipped with the package, given by name, and users' own, given by path."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import check
from mixer_jax.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Return the shipped config files by name, such as "cifar10"."""
    # An installed package contains the folder; in a clone it is next to the package.
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    files = sorted(folder.glob("*.py")) if folder else ()
    return {file.stem: file for file in files}


def get_config(name: str) -> ConfigDict:
    """Return the config that a file defines, checked.

    Args:
      name: the name of a shipped config, such as "cifar10", or the path of a Python file that has a function
        `get_config`. Text after a colon is passed to that function as its argument: "mixer_nano_cifar10:0.67M".

    Raises:
      UserError: if there is no such file, if it raises, or if a field is unknown, of the wrong type or out of range.
    """
    path, _, argument = name.partition(":")
    config = call_in(path, "get_config", *([argument] if argument else []))
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config returns {type(config).__name__}, not a ConfigDict")
    return check(config)


def call_in(name: str, function: str, *arguments: str) -> Any:
    """Call a function of a config file and return its result.

    Args:
      name: the name of a shipped config, or the path of a Python file.
      function: the name of the function.
      *arguments: passed to the function.

    Raises:
      UserError: if there is no such file or function, or if it raises.
    """
    path = shipped().get(name, Path(name))
    if not os.path.isfile(path):
        raise UserError(f"no config file {name}{did_you_mean(Path(name).stem, shipped())}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise UserError(f"{path} has no function {function}{'(arg=None)' if function == 'get_config' else '()'}")
        return getattr(module, function)(*arguments)
    except UserError:
        raise
    except Exception as error:  # a user's file can raise anything
        detail = " ".join(str(error).strip("'\"").split())
        raise UserError(f"{path}: {type(error).__name__}{detail and f': {detail}'}") from error
