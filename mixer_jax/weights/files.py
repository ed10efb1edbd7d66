"""Reading and writing files of arrays (.npz, .safetensors, PyTorch) and the model description stored with them."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.errors import UserError, one_of
from mixer_jax.storage import write_json

Arrays = dict[str, np.ndarray]

LARGEST_FILE = 16 * 2**30  # bytes of the arrays in a file; the paper's largest model has less than 2 GiB
DESCRIPTION = "mixer_jax"  # the key of the description in the metadata of a .safetensors file


def read_file(path: Path) -> Arrays:
    """Read the arrays of a file without executing any code in the file.

    Args:
      path: a .npz, .safetensors, .pth, .pt or .bin file.

    Returns:
      The arrays by name. Tensors of PyTorch files become float32.

    Raises:
      UserError: if the file cannot be read.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}
    readers[".bin"] = _read_torch
    if path.suffix not in readers:
        raise one_of("kind of weights", path.suffix or path.name, readers)
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        arrays = readers[path.suffix](path)
        if not all(isinstance(x, np.ndarray) for x in arrays.values()):
            raise ValueError("it holds more than arrays")
    except UserError:
        raise
    except Exception as error:  # each library raises its own exceptions
        detail = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"cannot read weights {path}: {detail}") from error
    return arrays


def _read_npz(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
            raise ValueError("unpacked it is larger than any Mixer")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file}


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - the file is not a dict


def _read_torch(path: Path) -> Arrays:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch: pip install torch, or give a .safetensors file") from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {key: x.float().numpy() for key, x in state.items() if torch.is_tensor(x)}


def write_file(path: Path, arrays: Arrays, description: dict[str, Any], name: str) -> list[str]:
    """Write arrays and the description of their model to a .safetensors or .npz file.

    The description goes into the metadata of a .safetensors file, or into NAME.json next to a .npz file.

    Args:
      path: of the file; the suffix .safetensors selects that format, any other suffix selects .npz.
      arrays: by name.
      description: the description of the model, serialisable as JSON.
      name: the final name of the file, in case `path` is temporary.

    Returns:
      The names of the additional files in the same folder.
    """
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path, {"format": "np", DESCRIPTION: json.dumps(description)})
        return []
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    beside = path.with_name(f"{name}.json")
    write_json(beside, description)
    return [beside.name]


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the description that `write_file` stored with a file, or None without one.

    Raises:
      UserError: if the description cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                text = (file.metadata() or {}).get(DESCRIPTION)
        else:
            text = path.with_name(f"{path.name}.json").read_text()
        return None if text is None else json.loads(text)
    except FileNotFoundError:
        return None
    except Exception as error:
        raise UserError(f"cannot read the description of the model in {path}: {error}") from error
