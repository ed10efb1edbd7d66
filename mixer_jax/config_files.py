"""Config files: the shipped ones by their names, and those of users by their paths."""

import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import check
from mixer_jax.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Return the shipped config files by name, such as "cifar10"."""
    # An installed package contains them; in a clone they lie beside the package.
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    files = sorted(folder.glob("*.py")) if folder else ()
    return {file.stem: file for file in files if file.stem != "__init__"}


def get_config(name: str) -> ConfigDict:
    """Return the checked config of a file.

    Args:
      name: of a shipped config, such as "cifar10", or the path of a Python file with a function `get_config()`. After a
        colon it takes the argument of that function: "cifar10_study:cutmix".

    Raises:
      UserError: if there is no such file, or if it raises.
    """
    path, _, argument = name.partition(":")
    return check(load_config(path, argument or None))


def load_config(name: str, argument: str | None = None) -> ConfigDict:
    """Return what `get_config(argument)` of a config file returns, unchecked."""
    config = call_in(name, "get_config", *([] if argument is None else [argument]))
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name}: get_config returns {type(config).__name__}, not a ConfigDict")
    return config


def call_in(name: str, function: str, *arguments: str) -> Any:
    """Call a function of a config file, and return what it returns.

    Args:
      name: as for `get_config`, without an argument.
      function: its name.
      *arguments: that it is given.

    Raises:
      UserError: if there is no such file or function, or if it raises.
    """
    path = Path(name) if Path(name).is_file() else shipped().get(name)
    if path is None:
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
    except Exception as error:  # the file is the user's, and so is whatever it raises
        detail = " ".join(str(error).strip("'\"").split())
        raise UserError(f"{path}: {type(error).__name__}: {detail}") from error
