"""Reading and writing files of arrays (.npz, .safetensors, PyTorch) and the model description stored with them."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mixer_jax.errors import Unreadable, UserError, in_one_line, one_of, printable
from mixer_jax.storage import replacing, write_json
from mixer_jax.weights.torch_file import read_torch

Arrays = dict[str, np.ndarray]

LARGEST_FILE = 16 * 2**30  # bytes of the arrays in a file; the paper's largest model has less than 2 GiB
DESCRIPTION = "mixer_jax"  # the key of the description in the metadata of a .safetensors file
INDEX = ".index.json"  # the suffix of a list of the files that hold the parts of a large model
# The files of a model's folder, as on the Hugging Face Hub, most preferred first.
IN_FOLDER = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
# The safetensors library names NumPy's dtypes itself, but not these.
SAFETENSORS_DTYPES = {"BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}
WEB_PAGE = "a web page: the download did not succeed"
# First bytes of files that are often mistaken for weights.
OTHERS = {
    b"\x89HDF": "an HDF5 file, as Keras writes it: save the weights as .npz or .safetensors",
    b"version https://git-lfs": "a Git LFS pointer to the file, not the file: run git lfs pull",
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"\x1f\x8b": "a gzip file: unpack it first",
}


def read_file(path: Path) -> Arrays:
    """Read the arrays of a file without executing any code in the file.

    Args:
      path: a file of NumPy (.npz), safetensors, or PyTorch (.pth, .pt, .bin, .ckpt, .tar); or the index (.index.json)
        of weights in several safetensors or PyTorch files.

    Returns:
      The arrays by name. The names of arrays in nested dicts are joined by dots.

    Raises:
      UserError: if the file cannot be read.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        arrays = READERS[_kind(path)](path)
    except UserError:
        raise
    except Exception as error:  # each library raises its own exceptions
        damaged = "" if isinstance(error, ValueError | OSError) else "; it is damaged or cut short: copy it again"
        message = f"cannot read weights {path}: {printable(in_one_line(error))[:200]}{damaged}"
        raise (Unreadable if damaged else UserError)(message) from error
    return {printable(name): x for name, x in arrays.items()}


def _kind(path: Path) -> str:
    """Return the suffix in `READERS` for the content of a file, which may have any name."""
    with path.open("rb") as file:
        start = file.read(32).lower()
    for magic, what in OTHERS.items():
        if start.startswith(magic.lower()):
            raise (Unreadable if what == WEB_PAGE else UserError)(f"cannot read weights {path}: it is {what}")
    suffix = INDEX if path.name.lower().endswith(INDEX) else path.suffix.lower()
    if start[8:9] == b"{" and suffix != INDEX:  # after the length of the header
        return ".safetensors"
    if start.startswith(b"pk") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return ".pth" if any(name.endswith("data.pkl") for name in archive.namelist()) else ".npz"
    if suffix not in READERS:
        raise one_of("kind of weights", path.suffix or path.name, READERS)
    return suffix


def _read_npz(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
            raise ValueError(f"it unpacks to more than {LARGEST_FILE // 2**30} GiB")
    arrays = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file:
            try:
                array = file[key]
            except ValueError as error:
                if "Object arrays" in str(error):
                    raise ValueError(f"{key} is an array of Python objects: save arrays of numbers") from error
                raise ValueError(f"{key} is damaged, or of a dtype that NumPy does not know: {error}") from error
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{key} is not an array")
            if array.dtype.kind == "V":  # NumPy stores other projects' dtypes as bytes without a meaning
                if array.dtype.itemsize != 2 or array.dtype.names:
                    raise ValueError(f"{key} has a dtype that a .npz file does not name: save it as float32")
                array = array.view(ml_dtypes.bfloat16)
            arrays[key] = array
    return arrays


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import deserialize, safe_open

    with safe_open(path, "numpy") as file:
        dtypes = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - the file is not a dict
        arrays = {key: file.get_tensor(key) for key, dtype in dtypes.items() if dtype not in SAFETENSORS_DTYPES}
    if len(arrays) < len(dtypes):
        for key, x in deserialize(path.read_bytes()):
            if key not in arrays:
                arrays[key] = np.frombuffer(x["data"], SAFETENSORS_DTYPES[x["dtype"]]).reshape(x["shape"])
    return arrays


def _read_index(path: Path) -> Arrays:
    parts = json.loads(path.read_text(encoding="utf-8")).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
        raise ValueError("it has no weight_map of arrays to files")
    arrays: Arrays = {}
    for name in sorted(set(parts.values())):
        if Path(name).name != name or name.lower().endswith(INDEX):
            raise ValueError(f"the part {printable(name)} is not a file of weights in the same folder")
        arrays |= read_file(path.with_name(name))
    if missing := [key for key in parts if printable(key) not in arrays]:
        raise ValueError(f"{printable(missing[0])} is in none of the parts")
    return arrays


READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".tar"), read_torch),
    INDEX: _read_index,
}


def write_file(path: Path, arrays: Arrays, description: dict[str, Any]) -> None:
    """Write arrays and the description of their model to a .safetensors or .npz file, atomically.

    The description goes into the metadata of a .safetensors file, or into NAME.json next to a .npz file.
    """
    with replacing(path) as partial:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save

            partial.write_bytes(save(arrays, {"format": "pt", DESCRIPTION: json.dumps(description)}))
        else:
            np.savez(partial, **arrays)  # type: ignore[arg-type]
            write_json(path.with_name(f"{path.name}.json"), description)


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the description that `write_file` stored with a file, or None without one.

    Raises:
      UserError: if the description cannot be read.
    """
    try:
        kind = _kind(path)
        if kind == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                text = (file.metadata() or {}).get(DESCRIPTION)
        elif kind == ".npz":
            text = path.with_name(f"{path.name}.json").read_text(encoding="utf-8")
        else:
            return None
        description = None if text is None else json.loads(text)
        return description if isinstance(description, dict) and "format" in description else None  # else another's file
    except FileNotFoundError:
        return None
    except Exception as error:
        detail = printable(in_one_line(error))[:200]
        raise UserError(f"cannot read the description of the model in {path}: {detail}") from error
