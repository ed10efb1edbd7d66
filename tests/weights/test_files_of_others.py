"""Files as people have them: each loads as the model that it came from, or is refused in one line."""

import gzip
import re
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

from made_models import made_classifier
from mixer_jax.errors import UserError
from mixer_jax.inference import Known, load
from mixer_jax.training.pretrained import initial_params
from mixer_jax.weights import LAYOUTS
from other_files import (
    AVERAGED,
    NAME,
    TIMM,
    Case,
    cast,
    data,
    logits_of,
    lucidrains,
    made,
    npz,
    of_safetensors,
    paper,
    prefixed,
    require,
    require_lines_for_damage,
    safetensors,
    several,
    sharded,
    text,
    with_one,
    without,
    zipped,
)

FLOATS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
CASES: dict[str, Case] = {}

# What is around the weights.
for prefix in (
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "net.",
    "0.",
    "params/",
    "module._orig_mod.",
    "_orig_mod.module.model.",
    "model.net.backbone.",
    "state_dict.model.",
):
    CASES[f"prefix {prefix}"] = Case(safetensors("x.safetensors", prefixed(prefix, TIMM)))
OURS, MEAN = paper(TIMM), paper(AVERAGED)
MOMENTS = prefixed("opt/0/mu/", MEAN) | prefixed("opt/0/nu/", MEAN) | {"opt/0/count": np.int32(3)}
STATES = {f"opt/state/param_states/{key}/{name}": x for key, x in MEAN.items() for name in ("grad_ema", "grad_sq_ema")}
BOTH = prefixed("params/", OURS) | prefixed("ema_params/", MEAN)
TAUGHT = prefixed("student.", TIMM) | prefixed("teacher.net.", AVERAGED)
TANH = {"gelu": "tanh"}
CASES |= {
    "npz": Case(npz("x.npz", OURS), **TANH),
    "compressed": Case(lambda to: np.savez_compressed(to / "x.npz", **OURS), **TANH),
    "of timm's names": Case(npz("x.npz", TIMM)),
    "of big_vision": Case(npz("x.npz", MOMENTS | prefixed("params/", OURS)), **TANH),
    "beside momentum": Case(npz("x.npz", prefixed("opt_state/0/trace/", MEAN) | prefixed("params/", OURS)), **TANH),
    "of older Flax": Case(
        npz("x.npz", prefixed("opt/target/", OURS) | STATES | {"opt/state/step": np.int32(3)}), **TANH
    ),
    "an optimiser alone": Case(
        npz("x.npz", prefixed("opt/0/mu/", MEAN)),
        "a Mixer only in the state of an optimiser; to choose one, set checkpoint to opt/0/mu",
    ),
    "an optimiser, asked for": Case(npz("x.npz", MOMENTS), weights=AVERAGED, checkpoint="opt/0/mu", **TANH),
    "averaged": Case(
        npz("x.npz", BOTH),
        weights=AVERAGED,
        gelu="tanh",
        warning="taking the averaged weights, ema_params; set checkpoint for the others: params",
    ),
    "not averaged": Case(npz("x.npz", BOTH), checkpoint="params", **TANH),
    "two models": Case(npz("x.npz", TAUGHT), "2 sets of weights; to choose one, set checkpoint to student or teacher"),
    "one of two": Case(npz("x.npz", TAUGHT), weights=AVERAGED, checkpoint="teacher"),
    "none of two": Case(npz("x.npz", TAUGHT), "no single Mixer 'pupil'; to choose one, set", checkpoint="pupil"),
    "beside other arrays": Case(
        safetensors("x.safetensors", prefixed("state_dict.model.", TIMM) | {"state_dict.loss.weight": FLOATS}),
        warning="1 arrays beside state_dict.model are left out, such as state_dict.loss.weight",
    ),
    "one too many": Case(
        npz("x.npz", TIMM | {"scale": FLOATS}), r"x.npz \(timm\): scale belongs to no Mixer of 3 blocks"
    ),
    "one missing": Case(npz("x.npz", without(TIMM, NAME)), rf"x.npz \(timm\): {NAME} is missing"),
    "half a head": Case(npz("x.npz", without(TIMM, "head.bias")), "head.bias is missing"),
    "of another shape": Case(
        npz("x.npz", TIMM | {"norm.bias": FLOATS}), r"\['bias'\] is float32\[3, 4\], expected float32\[48\]"
    ),
    "without axes": Case(
        npz("x.npz", TIMM | {"norm.bias": np.float32(0)}), r"\['bias'\] is float32\[1\], expected float32\[48\]"
    ),
    "another stem": Case(
        npz("x.npz", TIMM | {"stem.proj.weight": FLOATS}), r"stem/kernel of shape \[4, 3\] is not that of"
    ),
    "oblong patches": Case(
        npz("x.npz", TIMM | {"stem.proj.weight": TIMM["stem.proj.weight"][..., :2]}), "4x2 pixels are not square"
    ),
    "a huge number": Case(npz("x.npz", TIMM | {f"blocks.{'9' * 20}.norm1.weight": FLOATS}), "blocks.3.* is missing"),
    "no block": Case(
        npz("x.npz", {"1.weight": FLOATS, "1.bias": FLOATS, "1.0.norm.bias": FLOATS}), "2.0.norm.weight is mis"
    ),
    "two lines": Case(
        safetensors("x.safetensors", TIMM | {"a\nb\x1b[31m": FLOATS}), r"a\\nb\\x1b\[31m belongs to no Mixer"
    ),
}

# Numbers.
for dtype in (np.float16, ml_dtypes.bfloat16, np.float64, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
    name, stored = np.dtype(dtype).name, cast(TIMM, dtype)
    CASES[f"{name} in safetensors"] = Case(safetensors("x.safetensors", stored), weights=cast(stored, np.float32))
    line = "stem.proj|descr|dtype that a .npz file does not name: save it as float32" if "float8" in name else ""
    CASES[f"{name} in npz"] = Case(npz("x.npz", stored), line, weights=cast(stored, np.float32))
HALF = TIMM | {NAME: TIMM[NAME].astype(np.float16)}
CASES |= {
    "big-endian": Case(npz("x.npz", cast(TIMM, ">f4"))),
    "one in half precision": Case(npz("x.npz", HALF), weights=cast(HALF, np.float32)),
    "NaN": Case(npz("x.npz", with_one(np.nan)), f"{NAME} holds NaN or infinity"),
    "infinity": Case(safetensors("x.safetensors", with_one(-np.inf)), f"{NAME} holds NaN or infinity"),
    "NaN in bfloat16": Case(
        safetensors("x.safetensors", with_one(np.nan, ml_dtypes.bfloat16)), f"{NAME} holds NaN or inf"
    ),
    "NaN in float8": Case(
        safetensors("x.safetensors", with_one(np.nan, ml_dtypes.float8_e4m3fn)), f"{NAME} holds NaN or"
    ),
    "too large": Case(npz("x.npz", with_one(1e39, np.float64)), f"{NAME} holds values too large for float32"),
    "integers": Case(safetensors("x.safetensors", with_one(0, np.int8)), f"{NAME} is int8, not a float"),
    "complex": Case(npz("x.npz", with_one(0, np.complex64)), f"{NAME} is complex64, not a float"),
    "pairs of bytes": Case(
        npz("x.npz", {NAME: np.zeros(3, "i1,i1")}), f"{NAME} has a dtype that a .npz file does not name"
    ),
    "objects": Case(
        npz("x.npz", TIMM | {NAME: np.array([None])}), f"{NAME} is an array of Python objects: save arrays of n"
    ),
}

# Names and kinds of files.
WHOLE = of_safetensors(TIMM)
CASES |= {
    "safetensors in capitals": Case(safetensors("X.SAFETENSORS", TIMM)),
    "npz in capitals": Case(npz("X.NPZ", TIMM)),
    "safetensors called bin": Case(safetensors("x.bin", TIMM)),
    "npz called pth": Case(npz("x.pth", TIMM)),
    "without a suffix": Case(safetensors("76587d61", TIMM)),
    "HDF5": Case(
        data("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), "it is an HDF5 file, as Keras writes it: save the weights"
    ),
    "HDF5 called npz": Case(data("x.npz", b"\x89HDF\r\n\x1a\n"), "cannot read weights .*x.npz: it is an HDF5 file"),
    "a web page": Case(text("x.pth", "<!DOCTYPE html>\n<html>"), "it is a web page: the download did not succeed"),
    "a pointer": Case(
        text("x.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0"), "run git lfs pull"
    ),
    "gzip": Case(data("x.npz.gz", gzip.compress(WHOLE)), "it is a gzip file: unpack it first"),
    "empty safetensors": Case(
        data("x.safetensors", b""), "x.safetensors: .*; it is damaged or cut short: copy it again"
    ),
    "empty npz": Case(data("x.npz", b""), "x.npz: .*; it is damaged or cut short: copy it again"),
    "cut": Case(data("x.safetensors", WHOLE[:-9]), "x.safetensors: .*; it is damaged or cut short: copy it again"),
    "cut in its header": Case(
        data("x.safetensors", WHOLE[:99]), "x.safetensors: .*; it is damaged or cut short: copy it"
    ),
    "garbage": Case(
        data("x.safetensors", b"garbage" * 99), "x.safetensors: .*; it is damaged or cut short: copy it again"
    ),
    "no arrays": Case(zipped("x.npz", hello="hello"), "cannot read weights .*x.npz: hello is not an array"),
    "an empty archive": Case(
        zipped("x.npz"), r"not a Mixer in a known layout \(paper, timm, lucidrains\); its first arrays: none"
    ),
    "a text": Case(text("x.txt", "hello"), "unknown kind of weights '.txt'.*valid: .npz, .safetensors, .pth, "),
    "ONNX": Case(data("x.onnx", b"\x08\x07"), "unknown kind of weights '.onnx'"),
    "an empty folder": Case(several(load=""), "not a run directory: it has no config.json, nor a model.safetensors$"),
    "a folder of files": Case(
        several(safetensors("best.safetensors", TIMM), text("notes.txt", "!"), load=""),
        "safetensors: give .*/best.safetens",
    ),
    "a config alone": Case(several(text("config.json", {"architecture": "mixer_b16_224"}), load=""), "config.json"),
    "nothing": Case(
        several(load="nowhere.pth"), "there is no run directory or file .*/nowhere.pth, and no published Mixer"
    ),
    "an unknown name": Case(
        lambda to: "mixer_b17_224", r"no published Mixer of that name \(did you mean 'mixer_b16_224"
    ),
}

# Models in several files.
INDEX = "model.safetensors.index.json"
ONE, TWO = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
CASES |= {
    "an index": Case(sharded("model.safetensors", safetensors, load=INDEX)),
    "the folder of an index": Case(sharded("model.safetensors", safetensors)),
    "a missing part": Case(sharded("model.safetensors", safetensors, missing="00002-of"), f"no file .*/{TWO}"),
    "a part": Case(
        sharded("model.safetensors", safetensors, load=ONE), f"one of the 2 files of a model: give .*/{INDEX}"
    ),
    "a broken index": Case(text(INDEX, "{"), f"cannot read weights .*{INDEX}: "),
    "an index of nothing": Case(text(INDEX, {}), "it has no weight_map of arrays to files"),
    "an index of numbers": Case(text(INDEX, {"weight_map": {"a": 1}}), "it has no weight_map of arrays to files"),
    "an index of itself": Case(
        text(INDEX, {"weight_map": {"a": INDEX}}), f"the part {INDEX} is not a file of weights in the"
    ),
    "an index of elsewhere": Case(
        text(INDEX, {"weight_map": {"a": "../x.npz"}}), "the part ../x.npz is not a file of weights"
    ),
    "an index of too much": Case(
        sharded("model.safetensors", safetensors, weight_map={"scale": ONE, "norm": TWO}),
        "scale is in none of the parts",
    ),
}


# Folders as on the Hugging Face Hub.
def hub(config, arrays=TIMM, load=""):
    return several(safetensors("model.safetensors", arrays), text("config.json", config), load=load)


def of_timm(model_args=(), **fields):
    given = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3} | fields
    return {"architecture": "mixer_s16_224", "model_args": dict(model_args), "pretrained_cfg": given}


LARGE = of_timm(input_size=[3, 224, 224])
CASES |= {
    "a folder": Case(hub(of_timm())),
    "its file": Case(hub(of_timm(), load="model.safetensors")),
    "with one number as its size": Case(hub(LARGE | {"model_args": {"img_size": 32, "in_chans": 3}})),
    "with two numbers as its size": Case(hub(LARGE | {"model_args": {"img_size": [32, 32]}})),
    "with another size": Case(hub(LARGE), "64 patches of 4x4 pixels do not form an image of 224x224: set image_size"),
    "with another size, told": Case(hub(LARGE), known=Known((32, 32))),
    "of older timm": Case(hub({"architecture": "mixer_b16_224"} | of_timm()["pretrained_cfg"])),
    "of older timm, with a null": Case(
        hub(
            {"architecture": "mixer_b16_224", "pretrained_cfg": None}
            | {"mean": [0.5], "std": [0.5], "input_size": [3, 32, 32]}
        )
    ),
    "grey, with the mean of colours": Case(
        hub(of_timm({"in_chans": 1}, mean=[0.1, 0.2, 0.3]), made(channels=1)), "cannot be used: mean .* of 1 channels"
    ),
    "grey, of colours": Case(
        hub(of_timm(input_size=[1, 32, 32], mean=[0.1], std=[0.2])), "is for 3 channels, its config.json for 1"
    ),
    "squashed": Case(hub(of_timm(crop_mode="squash")), "crop_pct 0.875 and crop_mode 'squash' are not supported"),
    "with another filter": Case(
        hub(of_timm(interpolation="a\nb")), r"interpolation 'a\\nb', crop_pct 0.875 and crop_mode 'center' are"
    ),
    "with a crop of more": Case(hub(of_timm(crop_pct=1.1)), "interpolation 'bicubic', crop_pct 1.1 and crop_mode"),
    "with a std of zero": Case(
        hub(of_timm(std=[0.5, 0, 0.5])),
        "its config.json cannot be used: mean .* and std .* are not those of 3 channels",
    ),
    "with another activation": Case(
        hub(of_timm({"act_layer": "relu"})), "describes a Mixer with its own act_layer, which is"
    ),
    "of transformers": Case(
        hub({"model_type": "vit", "hidden_size": 768}), "config.json describes a vit, not a Mixer of timm"
    ),
    "of a gMixer": Case(hub({"architecture": "gmixer_24_224"}), "config.json describes a gmixer_24_224, not a Mixer"),
    "of two lines": Case(hub({"architecture": "a\n\x1b[31mb"}), r"describes a a\\n\\x1b\[31mb, not a Mixer"),
    "with a broken config": Case(hub('{"architecture": "mixer_'), "cannot read .*config.json: "),
    "with a list": Case(hub("[]"), "cannot read .*config.json: "),
    "with something else": Case(hub({"learning_rate": 0.1})),
    "with bytes": Case(
        several(safetensors("model.safetensors", TIMM), data("config.json", b"\xff"), load=""),
        "cannot read .*config.json: ",
    ),
}

# Images that are not square, and patches of which a file does not tell the shape.
OBLONG, WIDE, FOUR, GREY, SIX = (
    made(64, 32),
    made(64, 16),
    made(patch=4, channels=4),
    made(channels=1),
    made(channels=6),
)
OF_LUCIDRAINS = {"epsilon": 1e-5}
ASKED = "patches of 64 values are 8x8 pixels of 1 channel or 4x4 pixels of 4 channels: set channels"
CASES |= {
    "64x32": Case(
        npz("x.npz", OBLONG), "32 patches of 8x8 pixels do not form a square image: set image_size to the height and wi"
    ),
    "64x32, told": Case(npz("x.npz", OBLONG), weights=OBLONG, known=Known((64, 32)), size=(64, 32, 3)),
    "64x32, by its config": Case(hub(of_timm(input_size=[3, 64, 32]), OBLONG), weights=OBLONG, size=(64, 32, 3)),
    "64x16": Case(npz("x.npz", WIDE), weights=WIDE),
    "64x16, told": Case(npz("x.npz", WIDE), weights=WIDE, known=Known((64, 16)), size=(64, 16, 3)),
    "64x16, by its config": Case(hub(of_timm(input_size=[3, 64, 16]), WIDE), weights=WIDE, size=(64, 16, 3)),
    "told a size that does not fit": Case(npz("x.npz", WIDE), weights=WIDE, known=Known((96, 96))),
    "lucidrains": Case(npz("x.npz", lucidrains(made())), weights=made(), **OF_LUCIDRAINS),
    "lucidrains, wrapped": Case(npz("x.npz", prefixed("net.", lucidrains(made()))), weights=made(), **OF_LUCIDRAINS),
    "lucidrains, 64x16": Case(
        npz("x.npz", lucidrains(WIDE)), weights=WIDE, known=Known((64, 16)), size=(64, 16, 3), **OF_LUCIDRAINS
    ),
    "lucidrains, 4 channels": Case(npz("x.npz", lucidrains(FOUR)), ASKED),
    "lucidrains, 4 channels, told": Case(
        npz("x.npz", lucidrains(FOUR)), weights=FOUR, known=Known(channels=4), size=(32, 32, 4), **OF_LUCIDRAINS
    ),
    "lucidrains, 4 channels by patches": Case(
        npz("x.npz", lucidrains(FOUR)), weights=FOUR, known=Known(patch_size=4), size=(32, 32, 4), **OF_LUCIDRAINS
    ),
    "lucidrains, grey": Case(npz("x.npz", lucidrains(GREY)), ASKED),
    "lucidrains, grey, told": Case(
        npz("x.npz", lucidrains(GREY)), weights=GREY, known=Known(channels=1), size=(32, 32, 1), **OF_LUCIDRAINS
    ),
    "lucidrains, 6 channels": Case(npz("x.npz", lucidrains(SIX)), "384 values are not .*: set patch_size and channels"),
    "lucidrains, 6 channels, told": Case(
        npz("x.npz", lucidrains(SIX)), weights=SIX, known=Known(channels=6), size=(32, 32, 6), **OF_LUCIDRAINS
    ),
    "lucidrains, told wrongly": Case(
        npz("x.npz", lucidrains(made())), "192 values are not 4x4 pixels of 3 channels: set p", known=Known((), 4, 3)
    ),
}

# Other models, by the names of their arrays.
OTHERS = {
    "a gMLP": ["stem.proj.weight", "blocks.0.norm.weight", "blocks.0.mlp_channels.gate.proj.weight"],
    "a ResMLP": ["stem.proj.weight", "blocks.0.norm1.alpha", "blocks.0.linear_tokens.weight", "blocks.0.ls1"],
    "a Vision Transformer": ["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    "a transformer": ["layers.0.blocks.0.attn.qkv.weight"],
    "a ConvMixer": ["0.weight", "3.0.fn.0.weight", "3.0.fn.2.running_mean"],
    "a ResNet": ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"],
    "a convolutional network": ["features.0.weight", "features.1.running_mean"],
    "a Mixer whose stem is not one layer over patches": ["stem.conv1.weight", "blocks.0.mlp_tokens.fc1.weight"],
    "a Mixer of another implementation": [
        "backbone.patch_embed.projection.weight",
        "backbone.layers.0.token_mix.weight",
    ],
}
for name, keys in OTHERS.items():
    for prefix in ("", "state_dict.module."):
        arrays = prefixed(prefix, dict.fromkeys(keys, FLOATS))
        CASES[f"{prefix}{name}"] = Case(
            npz("x.npz", arrays), f"x.npz is {name}, not a Mixer in .*; its first arrays: {prefix}{keys[0]}"
        )
GATED = {key: np.concatenate([x, x]) if re.search(r"mlp_\w+\.fc1", key) else x for key, x in made().items()}
CASES |= {
    "a gMixer": Case(
        npz("x.npz", GATED), r"x.npz \(timm\) is a gMixer, whose MLPs are gated: not a Mixer as in the paper"
    ),
    "a LayerNorm in the stem": Case(
        npz("x.npz", TIMM | {"stem.norm.weight": FLOATS}), "stem.norm.weight belongs to no Mixer"
    ),
    "nothing known": Case(
        npz("x.npz", {"a": FLOATS}), r"x.npz is not a Mixer in a known layout .*; its first arrays: a$"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_files(name, tmp_path, capsys):
    require(CASES[name], tmp_path, capsys)


def test_weights_without_a_head_give_features_and_no_classes(tmp_path):
    headless = without(TIMM, "head.weight", "head.bias")
    np.savez(tmp_path / "x.npz", **prefixed("backbone.", headless))
    classifier = load(tmp_path / "x.npz")
    assert classifier.origin.found == "timm, 3 blocks of 48, 40,584 parameters, 32x32x3, no head"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    features = logits_of(headless, (pixels / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(classifier.features(pixels), features, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="x.npz has no head and so no classes: fine-tune it with config.init_from"):
        classifier.predict(pixels)
    for layout in LAYOUTS:
        classifier.save(tmp_path / f"{layout}.safetensors", layout)
        back = load(tmp_path / f"{layout}.safetensors")
        np.testing.assert_array_equal(back.features(pixels), classifier.features(pixels))
    model = classifier.model.clone(num_classes=4)
    params = initial_params(str(tmp_path / "x.npz"), model, (32, 32, 3))
    assert {key: np.abs(x).max() for key, x in params["head"].items()} == {"kernel": 0, "bias": 0}
    jax.tree.map(np.testing.assert_array_equal, classifier.params, {key: params[key] for key in classifier.params})


def test_a_renamed_file_of_ours_keeps_its_description(tmp_path):
    classifier = made_classifier()
    classifier.save(tmp_path / "x.safetensors", "timm")
    for name in ("X.SAFETENSORS", "x.bin", "x"):
        shutil.copy(tmp_path / "x.safetensors", tmp_path / name)
        back = load(tmp_path / name)
        assert (back.label_names, back.preprocessing) == (classifier.label_names, classifier.preprocessing)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "config.json", "index", "ours", "its description"])
def test_damage_gets_one_line(kind, tmp_path):
    file = source = tmp_path / "x.npz"
    if kind == "npz":
        np.savez(file, **TIMM)
    elif kind == "safetensors":
        file = source = tmp_path / "x.safetensors"
        file.write_bytes(WHOLE)
    elif kind == "config.json":
        source = hub(of_timm({"img_size": 32}, crop_pct=0.9) | {"label_names": {"0": "cat"}})(tmp_path)
        file = source / "config.json"
    elif kind == "index":
        source = sharded("model.safetensors", safetensors)(tmp_path)
        file = source / INDEX
    else:
        file = source = made_classifier().save(tmp_path / ("x.npz" if "its" in kind else "x.safetensors"))[0]
        file = tmp_path / "x.npz.json" if "its" in kind else file
    require_lines_for_damage(file, source)
