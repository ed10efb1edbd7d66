"""Reading PyTorch's files, in which weights are stored together with optimisers, arguments and other objects."""

import collections
import contextlib
import importlib.util
import itertools
import pickletools
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mixer_jax.errors import UserError

# References that could execute code are refused; all other unknown classes become inert stand-ins.
PROGRAM = re.compile(r"(os|posix|nt|sys|subprocess|shutil|runpy|importlib|builtins\.(exec|eval|open|__import__))\b")


class AnyDict:
    """Stands in for an object of an unknown class, which may be a dict with weights: its entries are kept."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return an empty dict, of a type that lets PyTorch add entries."""
        return collections.OrderedDict()


class AnyValue(list):
    """Stands in for an object that is not built like a dict; nothing of the object is kept."""

    __hash__ = object.__hash__  # type: ignore[assignment] # it may be the key of a dict

    def __init__(self, *args: Any, **kwargs: Any):
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file that `torch.save` wrote.

    Only objects that PyTorch's safe loading (`weights_only=True`) allows are created. Any other object is replaced by a
    stand-in, which keeps the object's entries if it may be a dict.

    Returns:
      The tensors by name. The names of tensors in nested dicts are joined by dots.

    Raises:
      UserError: if PyTorch is not installed, the file holds code, or it is pickled with a protocol above 2.
      ValueError: if the file is damaged, or holds a whole module, no tensor, or a tensor that is not dense.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"reading {path} needs PyTorch: pip install torch, or give a .safetensors file")
    names: list[str] = []
    try:
        names = _names(path)
        if programs := [name for name in names if PROGRAM.match(name)]:
            raise UserError(f"{path} holds {programs[0]!r}, which is code and not weights; nothing was executed")
        try:
            content = _content(path, names, AnyDict)
        except Exception:  # an object is not built like a dict
            content = _content(path, names, AnyValue)
    except UserError:
        raise
    except Exception as error:  # its text would advise the user to execute the file
        others = [name for name in names if not _is_standard(name)]
        objects = f"; or it holds objects of {others[0]}, which are not read: save the weights alone" if others else ""
        damaged = f"it is damaged, or not a file of torch.save: copy it again{objects}"
        raise ValueError(_module(names) or damaged) from error
    tensors: dict[str, Any] = {}
    _collect(content, "", tensors)
    if not any(name.endswith("weight") for name in tensors) and (module := _module(names)):
        raise ValueError(module)
    if not tensors:
        raise ValueError("it holds no tensors: save the state_dict() of the model")
    return {name: _as_numpy(name, x) for name, x in tensors.items()}


def _content(path: Path, names: Sequence[str], stand_in: type) -> Any:
    """Return the content of a file, with a stand-in for each object that `weights_only=True` does not allow.

    Args:
      path: the file to read.
      names: the classes and functions in it.
      stand_in: the class to use in place of each class whose objects may be dicts.
    """
    import torch

    values = [name for name in names if _is_standard(name) and not name.lower().endswith("dict")]
    stand_ins: list[Any] = [(AnyValue if name in values else stand_in, name) for name in names]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _names(path: Path) -> list[str]:
    """Return the names of the classes and functions in a file, as far as it can be read, without executing anything."""
    names: set[str] = set()
    with contextlib.suppress(ValueError):
        argument: Any
        for opcode, argument, _ in itertools.chain.from_iterable(map(pickletools.genops, _pickles(path))):
            if opcode.name == "PROTO" and argument > 2:
                raise UserError(f"{path} is pickled in protocol {argument}, not in 2: save it without pickle_protocol")
            if opcode.name == "GLOBAL":  # Python 3 writes some modules under their names in Python 2
                module, name = argument.split(" ", 1)
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                names.add(f"{module}.{name}")
    return sorted(names)


def _is_standard(name: str) -> bool:
    """Return whether a class or function is Python's, NumPy's or PyTorch's."""
    return name.split(".")[0] in {"numpy", "torch", *sys.stdlib_module_names}


def _module(names: Sequence[str]) -> str:
    """Return what is wrong with a file that holds a module instead of its weights, or "" for other files."""
    if any(name.startswith(("torch.nn.modules.", "__torch__.")) for name in names):
        return "it holds a whole module, whose code would have to be executed: save its state_dict() instead"
    return ""


def _pickles(path: Path) -> Iterator[bytes | BinaryIO]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    else:  # before PyTorch 1.6: a magic number, a version, the system, the content and the names of the storages
        with path.open("rb") as file:
            yield from (file for _ in range(5))


def _collect(content: Any, prefix: str, tensors: dict[str, Any]) -> None:
    import torch

    if torch.is_tensor(content):
        tensors[prefix] = content
    elif isinstance(content, dict | list | tuple):
        for key, x in content.items() if isinstance(content, dict) else enumerate(content):
            _collect(x, f"{prefix}.{key}" if prefix else str(key), tensors)


def _as_numpy(name: str, tensor: Any) -> np.ndarray:
    import torch

    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_meta:
        raise ValueError(f"{name} is a sparse, quantised or empty tensor: save it dense, as float32")
    tensor, dtype = tensor.detach().contiguous(), str(tensor.dtype).removeprefix("torch.")
    if hasattr(ml_dtypes, dtype):  # NumPy does not have it
        bits = {1: torch.uint8, 2: torch.int16}[tensor.itemsize]
        return tensor.view(bits).numpy().view(getattr(ml_dtypes, dtype))
    return tensor.numpy()
