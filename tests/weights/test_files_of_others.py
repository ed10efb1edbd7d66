"""Files as people have them: each loads as the model it came from, or is refused in one line; no code in it is run."""

import argparse
import collections
import dataclasses
import datetime
import functools
import gzip
import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from scipy.special import erf

from mixer_jax.errors import UserError
from mixer_jax.inference import Known, load
from mixer_jax.weights import read_file
from support import GOLDEN

try:
    import torch
except ImportError:
    torch = None

PAPER = read_file(GOLDEN / "paper_mixer_tiny.npz")
TIMM = read_file(GOLDEN / "timm_mixer_tiny.safetensors")
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@dataclasses.dataclass
class Case:
    """A file.

    Attributes:
      write: writes it into a folder, and returns what is loaded if that is not the only file there.
      line: matches the line by which it is refused; "" if it loads.
      weights: those that the logits must be computed with, in the layout of timm.
      known, checkpoint: of `load`.
      warning: matches what is told; "" for nothing.
      channels, size, epsilon: of the model's images and LayerNorms.
    """

    write: Callable[[Path], Any]
    line: str = ""
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=lambda: TIMM)
    known: Known = dataclasses.field(default_factory=Known)
    checkpoint: str = "best"
    warning: str = ""
    size: tuple[int, int, int] = (32, 32, 3)
    epsilon: float = 1e-6


CASES: dict[str, Case] = {}
OF_TORCH: dict[str, Case] = {}


def logits_of(weights, images, epsilon):
    """The logits of a Mixer in the layout of timm, in NumPy alone; images (n, height, width, channels)."""
    w = {key: x.astype(np.float64) for key, x in weights.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def mlp(x, name):
        x = x @ w[f"{name}.fc1.weight"].T + w[f"{name}.fc1.bias"]
        x = 0.5 * x * (1 + erf(x / np.sqrt(2)))
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


def made(height=32, width=32, patch=8, channels=3, hidden=12, blocks=2, tokens=10, wide=14, classes=5, seed=0):
    """A random Mixer in the layout of timm."""
    rng, number = np.random.default_rng(seed), height // patch * (width // patch)
    shapes = {"stem.proj": (hidden, channels, patch, patch), "norm": (hidden,), "head": (classes, hidden)}
    for i in range(blocks):
        shapes |= {f"blocks.{i}.norm{j}": (hidden,) for j in (1, 2)}
        shapes |= {f"blocks.{i}.mlp_tokens.fc1": (tokens, number), f"blocks.{i}.mlp_tokens.fc2": (number, tokens)}
        shapes |= {f"blocks.{i}.mlp_channels.fc1": (wide, hidden), f"blocks.{i}.mlp_channels.fc2": (hidden, wide)}
    arrays = {f"{name}.weight": rng.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {f"{name}.bias": rng.normal(size=shape[:1]) for name, shape in shapes.items()}
    return {key: x.astype(np.float32) for key, x in arrays.items()}


def lucidrains(weights):
    """The same arrays as lucidrains names and shapes them."""
    blocks = sum(key.endswith("norm1.weight") for key in weights)
    names = {"stem.proj": "1", "norm": f"{blocks + 2}", "head": f"{blocks + 4}"}
    for i in range(blocks):
        names |= {f"blocks.{i}.norm{j + 1}": f"{i + 2}.{j}.norm" for j in range(2)}
        names |= {f"blocks.{i}.mlp_{m}.fc{k + 1}": f"{i + 2}.{j}.fn.{3 * k}"
                  for j, m in enumerate(("tokens", "channels")) for k in range(2)}  # fmt: skip
    theirs = {}
    for key, x in weights.items():
        module, _, name = key.rpartition(".")
        if key == "stem.proj.weight":
            x = x.transpose(0, 2, 3, 1).reshape(len(x), -1)
        theirs[f"{names[module]}.{name}"] = x[..., None] if "mlp_tokens" in key and name == "weight" else x
    return theirs


def prefixed(prefix, arrays):
    return {prefix + key: x for key, x in arrays.items()}


def changed(arrays, **changes):
    """Arrays of which some are others, or missing if None; `__` stands for a dot."""
    changes = {key.replace("__", "."): x for key, x in changes.items()}
    return {key: x for key, x in (arrays | changes).items() if x is not None}


def cast(arrays, dtype):
    return {key: x.astype(dtype) for key, x in arrays.items()}


def npz(name, arrays):
    return lambda to: np.savez(to / name, **arrays)


SAFETENSORS_NAMES = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int8": "I8"}


def of_safetensors(arrays, metadata=None):
    """The bytes of a file, whatever its dtypes: the length of a header, the header and the arrays."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for key, x in arrays.items():
        dtype = SAFETENSORS_NAMES.get(x.dtype.name, f"F{8 * x.dtype.itemsize}")
        header[key] = {"dtype": dtype, "shape": x.shape, "data_offsets": [start, start := start + x.nbytes]}
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(x.tobytes() for x in arrays.values())


def safetensors(name, arrays):
    return lambda to: (to / name).write_bytes(of_safetensors(arrays))


def content(name, data):
    return lambda to: (to / name).write_bytes(data)


def several(*writes):
    """Write several files; what the last returns is loaded."""
    return lambda to: [write(to) for write in writes][-1]


def also(name):
    return lambda to: to / name


def text(name, value):
    return content(name, (value if isinstance(value, str) else json.dumps(value)).encode())


# Prefixes and other arrays beside those of the Mixer.
for prefix in (
    "", "module.", "_orig_mod.", "model.", "backbone.", "net.", "module._orig_mod.", "_orig_mod.module.model.",
    "model.net.backbone.", "state_dict.model.", "0.", "params/", "a.very-odd name:",
):  # fmt: skip
    if not prefix.endswith(":"):
        CASES[f"prefix {prefix}"] = Case(safetensors("x.safetensors", prefixed(prefix, TIMM)))
    else:
        CASES[f"prefix {prefix}"] = Case(safetensors("x.safetensors", prefixed(prefix, TIMM)), "is a Mixer whose stem")
OPTIMIZER = {"opt/step": np.int32(3), "opt/0/count": np.int32(3)}
AVERAGED = {key: x + np.float32(0.1) for key, x in TIMM.items()}
MOMENTS = {**prefixed("opt/0/mu/", AVERAGED), **prefixed("opt/0/nu/", AVERAGED)}
FLOATS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
CASES |= {
    "npz of timm's names": Case(npz("x.npz", TIMM)),
    "npz, compressed": Case(lambda to: np.savez_compressed(to / "x.npz", **TIMM)),
    "big_vision, beside an optimiser": Case(npz("x.npz", {**MOMENTS, **OPTIMIZER, **prefixed("params/", TIMM)})),
    "momentum of another optimiser": Case(
        npz("x.npz", {**prefixed("opt_state/0/trace/", AVERAGED), **prefixed("params/", TIMM)})
    ),
    "older Flax": Case(
        npz("x.npz", {**prefixed("opt/target/", TIMM), **prefixed("opt/state/param_states/", {"a/grad_ema": FLOATS})})
    ),
    "an optimiser's state alone": Case(
        npz("x.npz", prefixed("opt/0/mu/", TIMM)), "holds only the optimiser of Mixers: give checkpoint, .*opt/0/mu"
    ),
    "an optimiser's state, asked for": Case(npz("x.npz", MOMENTS), weights=AVERAGED, checkpoint="opt/0/mu"),
    "plain and averaged": Case(
        npz("x.npz", {**prefixed("params/", TIMM), **prefixed("ema_params/", AVERAGED)}),
        weights=AVERAGED,
        warning="taking the averaged weights, ema_params; give checkpoint for the others: params",
    ),
    "the plain ones, beside the averaged": Case(
        npz("x.npz", {**prefixed("params/", TIMM), **prefixed("ema_params/", AVERAGED)}), checkpoint="params"
    ),
    "student and teacher": Case(
        safetensors("x.safetensors", {**prefixed("student.", TIMM), **prefixed("teacher.", AVERAGED)}),
        "holds 2 Mixers: give checkpoint, one of student, teacher",
    ),
    "the teacher": Case(
        safetensors("x.safetensors", {**prefixed("student.", TIMM), **prefixed("teacher.net.", AVERAGED)}),
        weights=AVERAGED,
        checkpoint="teacher",
    ),
    "an entry that is not there": Case(
        safetensors("x.safetensors", prefixed("student.", TIMM)), "no single Mixer 'best_one': .*student",
        checkpoint="best_one",
    ),
    "arrays beside, in the same dict": Case(
        safetensors("x.safetensors", {**prefixed("state_dict.model.", TIMM), "state_dict.loss.weight": FLOATS}),
        warning="1 arrays beside state_dict.model are left out, such as state_dict.loss.weight",
    ),
    "one array too many": Case(safetensors("x.safetensors", changed(TIMM, scale=FLOATS)), "scale belongs to no Mixer"),
    "one array missing": Case(
        safetensors("x.safetensors", changed(TIMM, blocks__1__norm2__bias=None)),
        r"x.safetensors \(timm\): blocks.1.norm2.bias is missing",
    ),
    "half a head": Case(safetensors("x.safetensors", changed(TIMM, head__bias=None)), "head.bias is missing"),
    "an array of another shape": Case(
        safetensors("x.safetensors", changed(TIMM, norm__weight=np.ones(47, np.float32))),
        r"\['pre_head_layer_norm'\]\['scale'\] is float32\[47\], not float32\[48\]",
    ),
    "an array without axes": Case(
        safetensors("x.safetensors", changed(TIMM, norm__weight=np.ones((), np.float32))), r"is float32\[\], not"
    ),
    "a stem of another rank": Case(
        npz("x.npz", changed(TIMM, stem__proj__weight=FLOATS)), r"stem/kernel of shape \[4, 3\] is not that of a Mixer"
    ),
    "patches that are not square": Case(
        npz("x.npz", changed(TIMM, stem__proj__weight=TIMM["stem.proj.weight"][..., :2])), "4x2 pixels are not square"
    ),
    "a block of a huge number": Case(
        npz("x.npz", changed(TIMM, **{"blocks__99999999999999999999__norm1__weight": FLOATS})), "blocks.3.* is missing"
    ),
    "lucidrains without a block": Case(
        npz("x.npz", {"1.weight": FLOATS, "1.bias": FLOATS, "1.0.norm.weight": FLOATS}), r"2.0.norm.weight is missing"
    ),
    "a name with a line break": Case(
        safetensors("x.safetensors", TIMM | {"two\nlines \x1b[31m": FLOATS}), r"two\\nlines \\x1b\[31m belongs to no Mixer"
    ),
}  # fmt: skip

# Kinds of numbers.
HALF = cast(cast(TIMM, np.float16), np.float32)
BRAIN = cast(cast(TIMM, ml_dtypes.bfloat16), np.float32)
for dtype in (np.float16, ml_dtypes.bfloat16, np.float64, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
    stored = cast(TIMM, dtype)
    name, weights = np.dtype(dtype).name, cast(stored, np.float32)
    CASES[f"{name} in safetensors"] = Case(safetensors("x.safetensors", stored), weights=weights)
    line = "dtype that a .npz file does not name: save it as float32" if "float8" in name else ""
    CASES[f"{name} in npz"] = Case(npz("x.npz", stored), line, weights)
NAME = "blocks.1.mlp_tokens.fc1.weight"


def with_one(value, dtype=np.float32):
    bad = TIMM[NAME].astype(dtype)
    bad[2, 3] = value
    return TIMM | {NAME: bad}


CASES |= {
    "big-endian npz": Case(npz("x.npz", cast(TIMM, ">f4"))),
    "some in half precision": Case(npz("x.npz", TIMM | {NAME: TIMM[NAME].astype(np.float16)}),
                                   weights=TIMM | {NAME: HALF[NAME]}),
    "NaN": Case(npz("x.npz", with_one(np.nan)), f"{NAME} holds NaN or infinity"),
    "infinity": Case(safetensors("x.safetensors", with_one(-np.inf)), f"{NAME} holds NaN or infinity"),
    "NaN of half precision": Case(safetensors("x.safetensors", with_one(np.nan, ml_dtypes.bfloat16)), f"{NAME} holds N"),
    "NaN of a quarter": Case(
        safetensors("x.safetensors", with_one(np.nan, ml_dtypes.float8_e4m3fn)), f"{NAME} holds NaN or infinity"
    ),
    "too large for float32": Case(npz("x.npz", with_one(1e39, np.float64)), f"{NAME} holds values too large for float32"),
    "integers": Case(safetensors("x.safetensors", with_one(0, np.int8)), f"{NAME} is int8, not a float"),
    "complex": Case(npz("x.npz", with_one(0, np.complex64)), f"{NAME} is complex64, not a float"),
    "two fields of a byte": Case(
        npz("x.npz", TIMM | {NAME: np.zeros(TIMM[NAME].shape, [("a", "i1"), ("b", "i1")])}), "dtype that a .npz file"
    ),
    "Python objects": Case(npz("x.npz", TIMM | {NAME: np.array([None, 1])}), f"{NAME} is an array of Python objects: sav"),
}  # fmt: skip

# Files of another kind, damaged, or not there.
WHOLE = of_safetensors(TIMM)


def zipped(name, members):
    def write(to):
        with zipfile.ZipFile(to / name, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)

    return write


CASES |= {
    "safetensors in capitals": Case(safetensors("X.SAFETENSORS", TIMM)),
    "npz in capitals": Case(npz_named := lambda to: (np.savez(to / "x.npz", **TIMM), (to / "x.npz").rename(to / "X.NPZ"))[1]),
    "safetensors by another name": Case(safetensors("x.bin", TIMM)),
    "a file without a suffix, as in a cache": Case(safetensors("d1ae2c", TIMM)),
    "npz by another name": Case(lambda to: (np.savez(to / "x.npz", **TIMM), (to / "x.npz").rename(to / "x.pth"))[1]),
    "an HDF5 file": Case(content("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), "it is an HDF5 file, as Keras writes it: sa"),
    "an HDF5 file called npz": Case(content("x.npz", b"\x89HDF\r\n\x1a\n"), "it is an HDF5 file"),
    "a web page": Case(text("x.pth", "<!DOCTYPE html>\n<html>404</html>"), "it is a web page: the download did not succ"),
    "a pointer of Git LFS": Case(
        text("x.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9"), "run git lfs pull"
    ),
    "gzip": Case(content("x.npz.gz", gzip.compress(WHOLE)), "it is a gzip file: unpack it first"),
    "empty": Case(content("x.safetensors", b""), "cannot read weights .*x.safetensors: "),
    "empty npz": Case(content("x.npz", b""), "cannot read weights .*x.npz: "),
    "cut": Case(content("x.safetensors", WHOLE[:-9]), "cannot read weights .*; it is damaged or cut short: copy it again"),
    "cut in its header": Case(content("x.safetensors", WHOLE[:99]), "cannot read weights .*; it is damaged or cut short"),
    "no header": Case(content("x.safetensors", b"garbage" * 99), "cannot read weights .*; it is damaged or cut short"),
    "a zip without arrays": Case(zipped("x.npz", {"a.txt": "hello"}), "cannot read weights .*: a.txt is no array"),
    "an empty zip": Case(zipped("x.npz", {}), "is no Mixer of paper, timm, lucidrains: it holds nothing"),
    "a text file": Case(text("x.txt", "hello"), "unknown kind of weights '.txt'; valid: .npz, .safetensors"),
    "a file of ONNX": Case(content("x.onnx", b"\x08\x07"), "unknown kind of weights '.onnx'"),
    "an empty folder": Case(lambda to: to, "is no run directory: it has no config.json, nor a model.safetensors$"),
    "a folder of a file": Case(
        several(safetensors("best.safetensors", TIMM), text("notes.txt", "!"), also("")), "model.safetensors: give .*best"
    ),
    "a folder with another's config.json alone": Case(
        several(text("config.json", {"architecture": "mixer_b16_224"}), also("")), "config.json"
    ),
    "nothing": Case(also("nowhere.pth"), "there is no run directory or file .*nowhere.pth"),
    "an unknown name": Case(lambda to: "mixer_b17_224", r"no published Mixer of that name \(did you mean 'mixer_b16_224"),
}  # fmt: skip


# Models in several files, and folders.
def sharded(missing="", suffix=".safetensors", **index):
    keys = list(TIMM)
    parts = {ONE: keys[:20], TWO: keys[20:]}
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    parts = [safetensors(name, {key: TIMM[key] for key in keys}) for name, keys in parts.items() if name != missing]
    written = {"metadata": {"total_size": 1}, "weight_map": weight_map} | index
    return several(*parts, text("model.safetensors.index.json", written), also("model.safetensors.index.json"))


def hub(config, arrays=TIMM, file="model.safetensors"):
    return several(safetensors(file, arrays), text("config.json", config), also(""))


VIT = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 768}
OF_TIMM = {"architecture": "mixer_s16_224", "num_classes": 10, "pretrained_cfg": {"input_size": [3, 32, 32]}}
OF_TIMM["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}


def of_timm(**fields):
    return OF_TIMM | {"pretrained_cfg": OF_TIMM["pretrained_cfg"] | fields}


CASES |= {
    "an index": Case(sharded()),
    "a folder of an index": Case(several(sharded(), also(""))),
    "a shard is missing": Case(sharded(missing=TWO), f"no file .*{TWO}"),
    "one shard": Case(several(sharded(), also(ONE)), "is one of the 2 files of a model: give .*model.safetensors.index.json"),
    "an index that is broken": Case(text("x.safetensors.index.json", "{"), "cannot read weights .*index.json: "),
    "an index of nothing": Case(text("x.safetensors.index.json", {}), "it has no weight_map of arrays to files"),
    "an index of itself": Case(
        text("x.safetensors.index.json", {"weight_map": {"a": "x.safetensors.index.json"}}), "is not a file of weights"
    ),
    "an index of another folder": Case(
        text("x.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}}), "../x.safetensors is not a file of "
    ),
    "an index of an array that is not there": Case(
        sharded(weight_map=dict.fromkeys([*TIMM, "scale"], ONE)), "is in none of the parts"
    ),
    "a folder of the Hub": Case(hub(OF_TIMM)),
    "its file": Case(several(hub(OF_TIMM), also("model.safetensors"))),
    "a folder of the Hub, of a newer config": Case(hub(OF_TIMM | {"model_args": {"img_size": 32, "in_chans": 3}})),
    "a folder of the Hub, fine-tuned for another size": Case(
        hub(of_timm(input_size=[3, 224, 224]) | {"model_args": {"img_size": 32}})
    ),
    "a config of another size": Case(
        hub(of_timm(input_size=[3, 224, 224])), "64 patches of 4x4 pixels make not an image of 224x224: give image_size"
    ),
    "a config of another size, and the size": Case(hub(of_timm(input_size=[3, 224, 224])), known=Known((32, 32))),
    "a config without the rest": Case(hub(of_timm() | {"pretrained_cfg": None} | {"model_args": {"img_size": [32, 32]}}
                                          | {"mean": [0.5] * 3, "std": [0.5] * 3})),
    "an older config": Case(hub({"architecture": "mixer_b16_224", **OF_TIMM["pretrained_cfg"]})),
    "a config of grey images": Case(hub(of_timm(mean=[0.1, 0.2, 0.3]) | {"model_args": {"in_chans": 1}}), "config.json"),
    "a config of grey images for weights of colours": Case(
        hub(of_timm(input_size=[1, 32, 32], mean=[0.1], std=[0.2])), "make not|channels"
    ) if False else Case(hub(of_timm(crop_mode="squash")), "interpolation 'bicubic' and crop_mode 'squash' are not known"),
    "a config of another filter": Case(hub(of_timm(interpolation="nearest\n")), r"interpolation 'nearest\\n' and crop_mode"),
    "a config that crops more than all": Case(hub(of_timm(crop_pct=1.1)), "cannot read .*config.json: resize bicubic/1.1"),
    "a config of a std of zero": Case(hub(of_timm(std=[0.5, 0, 0.5])), "cannot read .*config.json: .*std"),
    "a config of another activation": Case(
        hub(OF_TIMM | {"model_args": {"act_layer": "relu"}}), "describes a Mixer with its own act_layer"
    ),
    "a config of transformers": Case(hub(VIT), "config.json describes a vit, not a Mixer of timm"),
    "a config of a gmixer": Case(hub({"architecture": "gmixer_24_224"}), "describes a gmixer_24_224, not a Mixer"),
    "a config of two lines": Case(hub({"architecture": "a\n\x1b[31mb"}), r"describes a a\\n\\x1b\[31mb, not a Mixer"),
    "a broken config": Case(hub('{"architecture": "mixer_'), "cannot read .*config.json: "),
    "a config that is a list": Case(hub("[]"), "cannot read .*config.json: "),
    "a config that is not UTF-8": Case(
        several(safetensors("model.safetensors", TIMM), content("config.json", b"\xff\xfe"), also("")), "cannot read .*config"
    ),
    "a config of something else": Case(hub({"learning_rate": 0.1})),
}  # fmt: skip

# Images that are not square, and patches of which the file does not tell the shape.
OBLONG, WIDE, FOUR, GREY = made(64, 32), made(64, 16), made(patch=4, channels=4), made(patch=8, channels=1)
CASES |= {
    "64x32 asks for its size": Case(npz("x.npz", OBLONG), "32 patches of 8x8 pixels make not a square image: give image_si"),
    "64x32": Case(npz("x.npz", OBLONG), weights=OBLONG, known=Known((64, 32)), size=(64, 32, 3)),
    "64x32, of an old config": Case(
        hub({"architecture": "mixer_b16_224", **OF_TIMM["pretrained_cfg"], "input_size": [3, 64, 32]}, OBLONG),
        weights=OBLONG, size=(64, 32, 3),
    ),
    "64x16 as 64x16": Case(npz("x.npz", WIDE), weights=WIDE, known=Known((64, 16)), size=(64, 16, 3)),
    "64x16 as a square, if nothing is known": Case(npz("x.npz", WIDE), weights=WIDE, size=(32, 32, 3)),
    "a size with another number of patches": Case(npz("x.npz", WIDE), weights=WIDE, known=Known((96, 96))),
    "lucidrains": Case(npz("x.npz", lucidrains(made())), weights=made(), epsilon=1e-5),
    "lucidrains, 64x16": Case(
        npz("x.npz", lucidrains(WIDE)), weights=WIDE, known=Known((64, 16)), size=(64, 16, 3), epsilon=1e-5
    ),
    "lucidrains in a wrapping": Case(npz("x.npz", prefixed("model.net.", lucidrains(made()))), weights=made(), epsilon=1e-5),
    **{
        f"lucidrains asks for the channels, {name}": Case(
            npz("x.npz", lucidrains(weights)),
            "patches of 64 values are 8x8 pixels of 1 channel or 4x4 pixels of 4 channels: give channels",
        )
        for name, weights in (("4", FOUR), ("grey", GREY))
    },
    "lucidrains, 4 channels": Case(npz("x.npz", lucidrains(FOUR)), weights=FOUR, known=Known(channels=4), size=(32, 32, 4),
                                   epsilon=1e-5),
    "lucidrains, patches of 4": Case(npz("x.npz", lucidrains(FOUR)), weights=FOUR, known=Known(patch_size=4),
                                     size=(32, 32, 4), epsilon=1e-5),
    "lucidrains, grey": Case(npz("x.npz", lucidrains(GREY)), weights=GREY, known=Known(channels=1), size=(32, 32, 1),
                             epsilon=1e-5),
    "lucidrains, 6 channels": Case(npz("x.npz", lucidrains(made(channels=6))), "384 values are not .*: give patch_size and ch"),
    "lucidrains, 6 channels, told": Case(npz("x.npz", lucidrains(made(channels=6))), weights=made(channels=6),
                                         known=Known(channels=6), size=(32, 32, 6), epsilon=1e-5),
    "lucidrains, told wrongly": Case(npz("x.npz", lucidrains(made())), "192 values are not 4x4 pixels of 3 channels: give pat",
                                     known=Known(patch_size=4, channels=3)),
    "the sizes of no variant": Case(npz("x.npz", made(hidden=16)), weights=made(hidden=16)),
}  # fmt: skip

# Other models, by the names of their arrays.
NAMES = {
    "a gMLP": ["stem.proj.weight", "blocks.0.norm.weight", "blocks.0.mlp_channels.gate.proj.weight"],
    "a ResMLP": ["stem.proj.weight", "blocks.0.norm1.alpha", "blocks.0.linear_tokens.weight", "blocks.0.ls1"],
    "a Vision Transformer": ["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    "a transformer": ["layers.0.blocks.0.attn.qkv.weight"],
    "a ConvMixer": ["0.weight", "3.0.fn.0.weight", "3.0.fn.2.running_mean"],
    "a ResNet": ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"],
    "a convolutional network": ["features.0.weight", "features.1.running_mean"],
    "a Mixer whose stem is not one layer over patches": ["stem.conv1.weight", "blocks.0.mlp_tokens.fc1.weight"],
    "a Mixer of another implementation": ["backbone.patch_embed.projection.weight",
                                          "backbone.layers.0.token_mix.layers.0.0.weight"],
}  # fmt: skip
for name, keys in NAMES.items():
    CASES[name] = Case(
        safetensors("x.safetensors", dict.fromkeys(keys, FLOATS)),
        f"x.safetensors is {name}, not a Mixer of paper, timm, lucidrains: it holds {keys[0]}",
    )
    CASES[f"{name}, wrapped"] = Case(
        npz("x.npz", prefixed("state_dict.module.", dict.fromkeys(keys, FLOATS))), f"x.npz is {name}, not a Mixer"
    )
GATED = {
    key: np.concatenate([x, x]) if re.search(r"mlp_\w+\.fc1", key) else x for key, x in made().items()
}  # the first layer has twice the width
CASES |= {
    "a gMixer": Case(safetensors("x.safetensors", GATED), "is a gMixer, whose MLPs are gated: not a Mixer as in the paper"),
    "a Mixer with a LayerNorm in its stem": Case(
        safetensors("x.safetensors", TIMM | {"stem.norm.weight": FLOATS}), r"\(timm\): stem.norm.weight belongs to no Mixer"
    ),
    "nothing known": Case(safetensors("x.safetensors", {"a": FLOATS}), "is no Mixer of .*: it holds a$"),
}  # fmt: skip


# Files of PyTorch.
def saved(name, content, **options):
    def write(to):
        torch.save(content() if callable(content) else content, to / name, **options)

    return write


def tensors(arrays):
    return {key: torch.from_numpy(np.array(x)) for key, x in arrays.items()}


class Settings:
    """A class of somebody's program, with which a file would run that program."""

    def __init__(self):
        self.rate = 0.1

    def __setstate__(self, state):
        Path(os.environ["MARK"]).touch()


class Slots:
    __slots__ = ("rate",)

    def __init__(self):
        self.rate = 0.1


class Names(dict):
    """A dict with attributes, as those of several projects."""


class History(list):
    """A list of its own class."""


class Kind(str):
    """A string of its own class."""


class Runs:
    """Runs a program wherever it is unpickled."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def marked(program):
    return lambda to: program.replace("MARK", str(to / "executed"))


def beside():
    """What trainers keep beside the weights."""
    names = Names(rate=0.1)
    names.rate = 0.1
    return {
        "epoch": 3,
        "loss": np.float64(0.5),
        "accuracy": np.float32(0.5),
        "losses": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, path=Path("x"), device=torch.device("cpu"), dtype=torch.float16),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3, 4)}},
                      "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]},
        "scaler": {"scale": 65536.0},
        "random": [random.getstate(), np.random.get_state(), np.random.default_rng(0), torch.get_rng_state()],
        "started": datetime.datetime(2024, 1, 1),
        "took": datetime.timedelta(1),
        "settings": Settings(),
        "names": names,
        "counts": collections.Counter("abc"),
        "by_class": collections.defaultdict(list, a=[1]),
        "classes": {0: "cat", "dog": {1, 2}, None: frozenset([3])},
        "kind": Kind("x"),
        "layout": torch.strided,
    }  # fmt: skip


def awkward():
    """Objects that are not built like dicts."""
    return {
        "partial": functools.partial(torch.optim.SGD, lr=0.1),
        "slots": Slots(),
        "history": History([1]),
        "recent": collections.deque([1, 2], maxlen=2),
        "scheduler": {np.int64(3): datetime.timezone.utc},
        "paths": {Path("x")},
        "bytes": b"abc",
        "range": range(3),
        "format": torch.contiguous_format,
    }


def of_legacy(name, content):
    return saved(name, content, _use_new_zipfile_serialization=False)


def wrapped(*keys, arrays=TIMM, **others):
    """A nested dict of tensors, beside other things."""

    def content():
        inner = tensors(arrays)
        for key in reversed(keys):
            inner = {key: inner}
        return {**beside(), **inner, **{key: value() for key, value in others.items()}}

    return content


for suffix in (".pth", ".pth.tar", ".ckpt", ".PTH", ".pt", ".bin", ".model", ""):
    OF_TORCH[f"file {suffix}"] = Case(saved(f"x{suffix}", lambda: tensors(TIMM)))
for keys in (
    ("model",), ("state_dict",), ("model_state_dict",), ("model_ema",), ("state_dict_ema",), ("ema",), ("net", "module"),
    ("weights", "params"), ("averaged_model",),
):  # fmt: skip
    OF_TORCH[f"beside others, {'.'.join(keys)}"] = Case(saved("x.pth", wrapped(*keys)))
for prefix in ("module.", "model.", "module._orig_mod.", "_orig_mod.module.backbone."):
    OF_TORCH[f"state_dict.{prefix}"] = Case(saved("x.ckpt", wrapped("state_dict", arrays=prefixed(prefix, TIMM))))
for name, dtype in (("float16", "float16"), ("bfloat16", "bfloat16"), ("float64", "float64"),
                    ("float8_e4m3fn", "float8_e4m3fn"), ("float8_e5m2", "float8_e5m2")):  # fmt: skip
    OF_TORCH[f"{name} of PyTorch"] = Case(
        saved("x.pth", lambda dtype=dtype: {k: x.to(getattr(torch, dtype)) for k, x in tensors(TIMM).items()}),
        weights=cast(cast(TIMM, getattr(ml_dtypes, dtype, dtype)), np.float32),
    )
BOTH = {"state_dict": lambda: tensors(TIMM), "state_dict_ema": lambda: tensors(prefixed("module.", AVERAGED))}


def lightning():
    """As Lightning writes it, with what its Hydra template keeps of the model's arguments."""
    model = prefixed("net.", tensors(TIMM))
    arguments = {"net": torch.nn.Linear(3, 4), "optimizer": functools.partial(torch.optim.Adam, lr=0.1), "compile": False}
    return {
        "epoch": 1, "global_step": 3, "pytorch-lightning_version": "2.4.0", "state_dict": model, "loops": {"a": {}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5), "dirpath": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": arguments,
    }  # fmt: skip


def module():
    return torch.nn.Sequential(torch.nn.Linear(3, 4))


def odd(change):
    def content():
        state = tensors(TIMM)
        return state | {NAME: change(state[NAME])}

    return content


def shared_and_strided():
    """Tensors that are views of one storage, parameters, and not contiguous."""
    state = tensors(TIMM)
    flat = torch.cat([x.flatten() for x in state.values()])
    parts = torch.split(flat, [x.numel() for x in state.values()])
    state = {key: part.view_as(x) for (key, x), part in zip(state.items(), parts, strict=True)}
    state[NAME] = torch.nn.Parameter(state[NAME].T.contiguous().T)
    state["stem.proj.weight"] = state["stem.proj.weight"].to(memory_format=torch.channels_last)
    return state


def swa():
    return {"n_averaged": torch.tensor(3), **prefixed("module.", tensors(TIMM))}


OF_TORCH |= {
    "averaged weights are taken": Case(
        saved("x.pth", lambda: {**beside(), **{key: value() for key, value in BOTH.items()}}),
        weights=AVERAGED,
        warning="taking the averaged weights, state_dict_ema.module; give checkpoint for the others: state_dict",
    ),
    "the others": Case(
        saved("x.pth", lambda: {key: value() for key, value in BOTH.items()}), checkpoint="state_dict"
    ),
    "by the whole name": Case(
        saved("x.pth", lambda: {key: value() for key, value in BOTH.items()}), checkpoint="state_dict_ema.module",
        weights=AVERAGED,
    ),
    "an ensemble": Case(
        saved("x.pth", lambda: [tensors(TIMM), tensors(AVERAGED)]), "holds 2 Mixers: give checkpoint, one of 0, 1$"
    ),
    "one of an ensemble": Case(saved("x.pth", lambda: [tensors(TIMM), tensors(AVERAGED)]), checkpoint="1", weights=AVERAGED),
    "Lightning": Case(saved("x.ckpt", lightning)),
    "awkward objects": Case(saved("x.pth", lambda: {**awkward(), **beside(), "model": tensors(TIMM)})),
    "awkward objects, in an older file": Case(of_legacy("x.pth", lambda: {**awkward(), "model": tensors(TIMM)})),
    "an older file": Case(of_legacy("x.pth", lambda: tensors(TIMM))),
    "an older file with others": Case(of_legacy("x.pth.tar", wrapped("state_dict", arrays=prefixed("module.", TIMM)))),
    "averaged by PyTorch": Case(saved("x.pth", swa)),
    "views and parameters": Case(saved("x.pth", shared_and_strided)),
    "safetensors called pth": Case(safetensors("x.pth", TIMM)),
    "lucidrains of PyTorch": Case(
        saved("x.pt", lambda: {"model": tensors(lucidrains(made()))}), weights=made(), epsilon=1e-5
    ),
    "shards of PyTorch": Case(
        several(
            saved("pytorch_model-00001-of-00002.bin", lambda: tensors({k: TIMM[k] for k in list(TIMM)[:20]})),
            saved("pytorch_model-00002-of-00002.bin", lambda: tensors({k: TIMM[k] for k in list(TIMM)[20:]})),
            text("pytorch_model.bin.index.json", {"weight_map": {
                key: f"pytorch_model-0000{1 + (i >= 20)}-of-00002.bin" for i, key in enumerate(TIMM)}}),
            also(""),
        )
    ),
    "a folder of the Hub with PyTorch's file": Case(
        several(saved("pytorch_model.bin", lambda: tensors(TIMM)), text("config.json", OF_TIMM), also(""))
    ),
    "NaN of PyTorch": Case(saved("x.pth", odd(lambda x: x * torch.nan)), f"{NAME} holds NaN or infinity"),
    "too large for float32, of PyTorch": Case(saved("x.pth", odd(lambda x: x.double() + 1e39)), f"{NAME} holds values too l"),
    "sparse": Case(saved("x.pth", odd(lambda x: x.to_sparse())), f"{NAME} is a sparse, quantised or empty tensor"),
    "without values": Case(saved("x.pth", odd(lambda x: x.to("meta"))), f"{NAME} is a sparse, quantised or empty tensor"),
    "another protocol": Case(
        saved("x.pth", lambda: tensors(TIMM), pickle_protocol=4), "is pickled in protocol 4, not in 2: save it without"
    ),
    "a whole module": Case(saved("x.pth", module), "it holds a whole module, .*: save its state_dict"),
    "a whole module beside an optimiser": Case(
        saved("x.pth", lambda: {**beside(), "model": module()}), "it holds a whole module, .*: save its state_dict"
    ),
    "a whole module in an older file": Case(of_legacy("x.pth", module), "it holds a whole module"),
    "a module of somebody's class": Case(saved("x.pth", lambda: {"model": Settings()}), "it holds no tensors"),
    "arrays of NumPy": Case(saved("x.pth", lambda: dict(TIMM)), "it holds no tensors"),
    "numbers alone": Case(saved("x.pth", lambda: {"epoch": 3}), "it holds no tensors"),
    "cut of PyTorch": Case(
        lambda to: (torch.save(tensors(TIMM), to / "x.pth"), os.truncate(to / "x.pth", 30_000))[0], "it is damaged, or not a"
    ),
    "an older file, cut": Case(
        lambda to: (of_legacy("x.pth", lambda: tensors(TIMM))(to), os.truncate(to / "x.pth", 30_000))[0], "it is damaged"
    ),
    "text called pth": Case(text("x.pth", "hello"), "it is damaged, or not a file of torch.save: copy it again"),
    "garbage called ckpt": Case(content("x.ckpt", b"garbage" * 99), "it is damaged, or not a file of torch.save"),
    "arrays of NumPy, pickled": Case(
        lambda to: (to / "x.pth").write_bytes(pickle.dumps(dict(TIMM), 2)), "it is damaged, or not a file of torch.save"
    ),
    "a reference to itself": Case(saved("x.pth", lambda: itself()), "cannot read weights .*x.pth: "),
}  # fmt: skip


def itself():
    content: dict[str, Any] = {}
    content["content"] = content
    return content


def script(to):
    torch.jit.script(module()).save(str(to / "x.pt"))


# Files that would run a program.
def harmful(name, *, function=os.system, program="touch MARK", dump="zip", beside=True):
    def write(to):
        runs = Runs(function, program.replace("MARK", str(to / "executed")))
        content = {"model": tensors(TIMM), "x": runs} if beside else runs
        if dump in ("zip", "older"):
            torch.save(content, to / name, _use_new_zipfile_serialization=dump == "zip")
        else:
            (to / name).write_bytes(pickle.dumps(runs, dump))

    return write


TOUCH = "import pathlib; pathlib.Path('MARK').touch()"
HARMFUL = {
    "os.system": Case(harmful("x.pth"), "x.pth holds 'posix.system', which is code and not weights; nothing was executed"),
    "os.system alone": Case(harmful("x.pt", beside=False), "holds 'posix.system', which is code"),
    "os.system in an older file": Case(harmful("x.bin", dump="older"), "holds 'posix.system', which is code"),
    "os.system, pickled": Case(harmful("x.ckpt", dump=2), "holds 'posix.system', which is code"),
    "os.system, pickled in protocol 0": Case(harmful("x.pth", dump=0), "holds 'posix.system', which is code"),
    "os.system, pickled in protocol 5": Case(harmful("x.pth", dump=5), "is pickled in protocol 5, not in 2"),
    "exec": Case(harmful("x.pth", function=exec, program=TOUCH), "holds 'builtins.exec', which is code and not weights"),
    "eval, pickled": Case(
        harmful("x.pth", function=eval, program="open('MARK', 'w')", dump=2), "holds 'builtins.eval', which is code"
    ),
    "objects in npz": Case(
        lambda to: np.savez(to / "x.npz", x=np.array([Runs(os.system, f"touch {to}/executed")])), "x is an array of Python ob"
    ),
    "a program of one's own": Case(saved("x.pth", lambda: {"model": tensors(TIMM), "x": Settings()})),
    "a function of another name": Case(
        harmful("x.pth", function=functools.partial(pickle.loads), program="x"), ""
    ) if False else Case(saved("x.pth", lambda: {"model": tensors(TIMM), "x": Runs(touch, os.environ["MARK"])})),
    "TorchScript": Case(script, "it holds a whole module, .*: save its state_dict"),
}  # fmt: skip


def touch(path):
    Path(path).touch()


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, images):
    return model.apply({"params": params}, images)


@pytest.fixture
def outcome(tmp_path, monkeypatch, capsys):
    """Write the file of a case, load it, and compare with what the case says."""
    monkeypatch.setenv("MARK", str(tmp_path / "executed"))

    def check(case):
        source = case.write(tmp_path)
        (tmp_path / "executed").unlink(missing_ok=True)
        if not isinstance(source, str | Path):
            source, *others = tmp_path.iterdir()
            assert not others
        if case.line:
            with pytest.raises(UserError, match=case.line) as caught:
                load(source, case.checkpoint, case.known)
            require_one_line(str(caught.value))
        else:
            classifier = load(source, case.checkpoint, case.known)
            assert classifier.input_shape == case.size
            pixels = np.random.default_rng(0).integers(0, 256, (3, *case.size)).astype(np.uint8)
            images = (pixels.astype(np.float32) / 255 - 0.5) / 0.5
            assert {*classifier.preprocessing.mean, *classifier.preprocessing.std} == {0.5}
            expected = logits_of(case.weights, images, case.epsilon)
            np.testing.assert_allclose(apply(classifier.model, classifier.params, images), expected, atol=1e-5, rtol=1e-5)
            told = capsys.readouterr().err
            assert re.search(case.warning, told) if case.warning else not told
        assert not (tmp_path / "executed").exists()

    return check


def require_one_line(line):
    assert re.fullmatch("[^\n\r\x1b]{10,1500}", line)
    for advice in ("weights_only", "add_safe_globals", "allow_pickle", "Traceback", "trusted"):
        assert advice not in line


@pytest.mark.parametrize("name", CASES)
def test_files(name, outcome):
    outcome(CASES[name])


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="needs PyTorch")
@pytest.mark.parametrize("name", OF_TORCH)
def test_files_of_pytorch(name, outcome):
    outcome(OF_TORCH[name])


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="needs PyTorch")
@pytest.mark.parametrize("name", HARMFUL)
def test_nothing_in_a_file_is_executed(name, outcome):
    outcome(HARMFUL[name])
