"""Reading PyTorch's files, in which weights lie beside optimisers, arguments and other objects."""

import collections
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mixer_jax.errors import UserError

# What PyTorch creates itself; any other class in a file gets a stand-in, so that none of its code is executed.
KNOWN = re.compile(r"torch\.(\w+$|_|storage|serialization|nn\.parameter)|collections\.(OrderedDict|Counter)$")
HARMLESS = {
    f"builtins.{name}" for name in ("list", "set", "frozenset", "dict", "tuple", "int", "float", "str", "object")
}
PROGRAM = re.compile(r"(builtins|os|posix|nt|sys|subprocess|shutil|runpy|importlib|pickle)\b")


class AnyObject:
    """Stands in for an object, which may be a dict with weights: its entries and its attributes are kept."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return an empty dict of the type to which PyTorch adds entries."""
        return collections.OrderedDict()


class AnyValue:
    """Stands in for a value of NumPy, of which nothing is kept."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "AnyValue":
        """Ignore the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file that `torch.save` wrote; objects of other classes are left out, not created.

    Returns:
      The tensors by name. The names of tensors in nested dicts are joined by dots.

    Raises:
      UserError: if PyTorch is not installed, or the file holds a whole module, or no tensor.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch: pip install torch, or give a .safetensors file") from error
    names: list[str] = []
    try:
        names = _names(path)
        if programs := [name for name in names if PROGRAM.match(name) and name not in HARMLESS]:
            raise UserError(f"{path} holds {programs[0]}, which is code and not weights; nothing was executed")
        stand_ins = [
            (AnyValue if name.startswith(("numpy.", "_codecs.")) else AnyObject, name)
            for name in names
            if not KNOWN.match(name)
        ]
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # whose text is PyTorch's advice to execute the file
        raise ValueError(_module(names) or "it is damaged, or not a file of torch.save") from error
    tensors: dict[str, Any] = {}
    _collect(content, "", tensors)
    if not tensors and (module := _module(names)):
        raise ValueError(module)
    return {name: _as_numpy(name, x) for name, x in tensors.items()}


def _names(path: Path) -> list[str]:
    """Return the names of the classes and functions in a file, without executing anything."""
    names: set[str] = set()
    for pickled in _pickles(path):
        strings: list[str] = []
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                names.add(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    return sorted(name.replace("__builtin__.", "builtins.") for name in names)


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
    elif isinstance(content, dict):
        for key, x in content.items():
            _collect(x, f"{prefix}.{key}" if prefix else str(key), tensors)


def _as_numpy(name: str, tensor: Any) -> np.ndarray:
    import torch

    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_meta:
        raise ValueError(f"{name} is a sparse, quantised or empty tensor: save it dense, as float32")
    kinds = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    }
    tensor = tensor.detach().contiguous()
    if tensor.dtype in kinds:
        view, dtype = kinds[tensor.dtype]
        return tensor.view(view).numpy().view(dtype)
    return tensor.numpy()
