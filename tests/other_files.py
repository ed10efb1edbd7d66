"""Files of weights as people have them: written for a test, and compared with what is to come of them."""

import dataclasses
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import erf

from mixer_jax.errors import UserError
from mixer_jax.inference import Known, load
from mixer_jax.weights import read_file
from support import GOLDEN

TIMM = read_file(GOLDEN / "timm_mixer_tiny.safetensors")
AVERAGED = {key: x + np.float32(0.1) for key, x in TIMM.items()}
NAME = "blocks.1.mlp_tokens.fc1.weight"  # of one array
ADVICE = ("weights_only", "add_safe_globals", "allow_pickle", "trust")  # that is not for the user
APPLY = jax.jit(lambda model, params, images: model.apply({"params": params}, images), static_argnums=0)


@dataclasses.dataclass
class Case:
    """A file.

    Attributes:
      write: writes it into a folder, and returns the path to load, unless it is the only one there.
      line: matches the line by which it is refused; "" if it loads.
      weights: with which the logits are computed, in the layout of timm.
      size: (height, width, channels) of the model's input.
      epsilon, gelu: of its LayerNorms and its GELU, as in `MlpMixer`.
      known, checkpoint: as in `load`.
      warning: matches what is told; "" if nothing is.
    """

    write: Callable[[Path], Any]
    line: str = ""
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=lambda: TIMM)
    size: tuple[int, int, int] = (32, 32, 3)
    epsilon: float = 1e-6
    gelu: str = "exact"
    known: Known = dataclasses.field(default_factory=Known)
    checkpoint: str = "best"
    warning: str = ""


def require(case, folder, capsys):
    """Write the file of a case, load it, and check that what comes is what the case says."""
    source = case.write(folder)
    if not isinstance(source, str | Path):
        [source] = folder.iterdir()
    if case.line:
        with pytest.raises(UserError, match=case.line) as caught:
            load(source, case.checkpoint, case.known)
        require_one_line(str(caught.value))
    else:
        classifier = load(source, case.checkpoint, case.known)
        assert classifier.input_shape == case.size
        assert {*classifier.preprocessing.mean, *classifier.preprocessing.std} == {0.5}
        images = np.random.default_rng(0).uniform(-1, 1, (3, *case.size)).astype(np.float32)
        logits = APPLY(classifier.model, classifier.params, images)
        expected = logits_of(case.weights, images, case.epsilon, case.gelu)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
        told = capsys.readouterr().err
        assert re.search(case.warning, told) if case.warning else not told


def require_one_line(line):
    assert re.fullmatch("[^\n\r\x1b]{10,1500}", line)
    assert not any(word in line for word in ADVICE)


def logits_of(weights, images, epsilon=1e-6, gelu="exact"):
    """The logits of a Mixer, or the features of one without a head, in NumPy; weights in the layout of timm."""
    w = {key: x.astype(np.float64) for key, x in weights.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def mlp(x, name):
        x = x @ w[f"{name}.fc1.weight"].T + w[f"{name}.fc1.bias"]
        x = (
            0.5
            * x
            * (1 + (erf(x / 2**0.5) if gelu == "exact" else np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))))
        )
        return x @ w[f"{name}.fc2.weight"].T + w[f"{name}.fc2.bias"]

    patch = w["stem.proj.weight"].shape[-1]
    n, height, width, channels = images.shape
    x = images.reshape(n, height // patch, patch, width // patch, patch, channels)
    x = np.einsum("nipjqc,dcpq->nijd", x, w["stem.proj.weight"]) + w["stem.proj.bias"]
    x = x.reshape(n, -1, x.shape[-1])
    for i in range(sum(key.endswith("norm1.weight") for key in w)):
        x = x + mlp(norm(x, f"blocks.{i}.norm1").swapaxes(1, 2), f"blocks.{i}.mlp_tokens").swapaxes(1, 2)
        x = x + mlp(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp_channels")
    features = norm(x, "norm").mean(1)
    return features @ w["head.weight"].T + w["head.bias"] if "head.weight" in w else features


def made(height=32, width=32, patch=8, channels=3, hidden=12, tokens=10, wide=14, classes=5):
    """Random weights of a Mixer of two blocks in the layout of timm."""
    rng, number = np.random.default_rng(0), height // patch * (width // patch)
    shapes = {"stem.proj": (hidden, channels, patch, patch), "norm": (hidden,), "head": (classes, hidden)}
    for i in range(2):
        shapes |= {f"blocks.{i}.norm1": (hidden,), f"blocks.{i}.norm2": (hidden,)}
        shapes |= {f"blocks.{i}.mlp_tokens.fc1": (tokens, number), f"blocks.{i}.mlp_tokens.fc2": (number, tokens)}
        shapes |= {f"blocks.{i}.mlp_channels.fc1": (wide, hidden), f"blocks.{i}.mlp_channels.fc2": (hidden, wide)}
    arrays = {f"{name}.weight": rng.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {f"{name}.bias": rng.normal(size=shape[:1]) for name, shape in shapes.items()}
    return {key: x.astype(np.float32) for key, x in arrays.items()}


def paper(weights):
    """Weights in the layout of timm as the paper names and shapes them."""
    names = {"stem.proj": "stem", "norm": "pre_head_layer_norm", "head": "head"}
    for i in range(sum(key.endswith("norm1.weight") for key in weights)):
        names |= {f"blocks.{i}.norm{j + 1}": f"MixerBlock_{i}/LayerNorm_{j}" for j in range(2)}
        for mixing in ("token", "channel"):
            names |= {
                f"blocks.{i}.mlp_{mixing}s.fc{j + 1}": f"MixerBlock_{i}/{mixing}_mixing/Dense_{j}" for j in range(2)
            }
    theirs = {}
    for key, x in weights.items():
        module, _, name = key.rpartition(".")
        kernel = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
        theirs[f"{names[module]}/{name if name == 'bias' else 'scale' if 'norm' in module else 'kernel'}"] = kernel
    return theirs


def lucidrains(weights):
    """Weights in the layout of timm as lucidrains names and shapes them."""
    blocks = sum(key.endswith("norm1.weight") for key in weights)
    names = {"stem.proj": "1", "norm": f"{blocks + 2}", "head": f"{blocks + 4}"}
    for i in range(blocks):
        for j, mixing in enumerate(("tokens", "channels")):
            names[f"blocks.{i}.norm{j + 1}"] = f"{i + 2}.{j}.norm"
            names |= {f"blocks.{i}.mlp_{mixing}.fc{k + 1}": f"{i + 2}.{j}.fn.{3 * k}" for k in range(2)}
    theirs = {}
    for key, x in weights.items():
        module, _, name = key.rpartition(".")
        if key == "stem.proj.weight":
            x = x.transpose(0, 2, 3, 1).reshape(len(x), -1)
        theirs[f"{names[module]}.{name}"] = x[..., None] if "mlp_tokens" in key and name == "weight" else x
    return theirs


def prefixed(prefix, arrays):
    return {prefix + key: x for key, x in arrays.items()}


def cast(arrays, dtype):
    return {key: x.astype(dtype) for key, x in arrays.items()}


def without(arrays, *keys):
    return {key: x for key, x in arrays.items() if key not in keys}


def with_one(value, dtype=np.float32):
    """Weights of which one number is another."""
    bad = TIMM[NAME].astype(dtype)
    bad[2, 3] = value
    return TIMM | {NAME: bad}


def npz(name, arrays):
    def write(to):
        np.savez(to / "written.npz", **arrays)
        (to / "written.npz").rename(to / name)

    return write


def safetensors(name, arrays):
    return data(name, of_safetensors(arrays))


def of_safetensors(arrays):
    """The bytes of a file, with any dtypes: the length of the header, the header and the arrays."""
    names = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int8": "I8"}
    header: dict[str, Any] = {}
    end = 0
    for key, x in arrays.items():
        dtype = names.get(x.dtype.name, f"F{8 * x.dtype.itemsize}")
        header[key] = {"dtype": dtype, "shape": x.shape, "data_offsets": [end, end := end + x.nbytes]}
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(x.tobytes() for x in arrays.values())


def data(name, content):
    return lambda to: (to / name).write_bytes(content)


def text(name, content):
    """Write a text, or an object as JSON."""
    return data(name, (content if isinstance(content, str) else json.dumps(content)).encode())


def zipped(name, **members):
    def write(to):
        with zipfile.ZipFile(to / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)

    return write


def several(*writes, load):
    """Write several files into a folder and load one of them, or the folder itself if it is ""."""
    return lambda to: [[write(to) for write in writes], to / load][1]


def sharded(name, write, keys=tuple(TIMM), load="", missing="", **index):
    """Write a model in two files and their index; `write` writes a file of arrays."""
    stem, suffix = name.split(".", 1)
    files = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    of_file = {key: files[i >= 20] for i, key in enumerate(keys)}
    writes = [
        write(file, {key: TIMM[key] for key in keys if of_file[key] == file})
        for file in files
        if not missing or missing not in file
    ]
    index = {"metadata": {"total_size": 1}, "weight_map": of_file} | index
    return several(*writes, text(f"{name}.index.json", index), load=load)


def require_lines_for_damage(file, source, count=24):
    """Cut a file and change bits of it: it loads, or is refused in one line."""
    whole, rng, refused = file.read_bytes(), np.random.default_rng(0), 0
    for i in range(count):
        damaged = bytearray(whole)
        if i % 3 == 0:
            damaged = damaged[: len(damaged) * i // count]
        else:  # the first part is that of the names
            for position in rng.integers(0, min(len(damaged), 5000), i % 4 + 1):
                damaged[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            load(source)
        except UserError as error:
            require_one_line(str(error))
            refused += 1
    assert refused > count / 3
