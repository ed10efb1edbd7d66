"""PyTorch's files, with all that trainers keep beside the weights; nothing in a file is ever executed."""

import argparse
import collections
import datetime
import functools
import os
import pickle
import random
import types
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from other_files import (
    AVERAGED,
    NAME,
    TIMM,
    Case,
    cast,
    data,
    lucidrains,
    made,
    prefixed,
    require,
    require_lines_for_damage,
    safetensors,
    several,
    sharded,
    text,
)

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def saved(name, content, **options):
    """Write an object, or what a function returns."""
    return lambda to: torch.save(
        content() if isinstance(content, types.FunctionType) else content, to / name, **options
    )


def saved_as_before(name, content):
    """Write it as PyTorch before 1.6."""
    return saved(name, content, _use_new_zipfile_serialization=False)


def cut(write):
    def cut(to):
        write(to)
        os.truncate(*to.iterdir(), 30_000)

    return cut


def tensors(arrays):
    return {key: torch.from_numpy(np.array(x)) for key, x in arrays.items()}


STATE, MEAN = tensors(TIMM), tensors(AVERAGED)


class Settings:
    """A class of somebody's program, which leaves a mark when it is unpickled."""

    rate = 0.1

    def __getstate__(self):
        return {"rate": 0.1}

    def __setstate__(self, state):
        mark()


class Slots:
    __slots__ = ("rate",)

    def __init__(self):
        self.rate = 0.1


class Names(dict):
    """A dict with attributes, like those of several projects."""


class History(list):
    """A list of its own class."""


class Text(str):
    """A string of its own class."""


def mark(path=""):
    Path(path or os.environ["MARK"]).touch()


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def others():
    """What trainers keep beside the weights."""
    names = Names(rate=0.1)
    names.kind = "x"
    parameters = {"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}
    return {
        "epoch": 3,
        "loss": np.float64(0.5),
        "accuracy": np.float32(0.5),
        "losses": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, path=Path("x"), device=torch.device("cpu"), dtype=torch.float16),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": MEAN[NAME]}}, "param_groups": [parameters]},
        "scaler": {"scale": 65536.0},
        "random": [random.getstate(), np.random.get_state(), np.random.default_rng(0), torch.get_rng_state()],
        "time": [datetime.datetime(2024, 1, 1), datetime.timedelta(1), datetime.UTC],
        "settings": Settings(),
        "names": names,
        "text": Text("x"),
        "counts": collections.Counter("abc"),
        "by_class": collections.defaultdict(list, a=[1]),
        "classes": {0: "cat", "dog": {1, 2}, None: frozenset([3])},
        "layout": torch.strided,
    }


def awkward():
    """Objects of Python's and NumPy's that are not built like a dict."""
    return {
        "partial": functools.partial(torch.optim.SGD, lr=0.1),
        "recent": collections.deque([1, 2], maxlen=2),
        "by number": {np.int64(3): "cat"},
        "paths": {Path("x")},
        "bytes": b"abc",
        "range": range(3),
    }


def lightning():
    """As Lightning writes it, with the arguments that its Hydra template keeps."""
    arguments = {"net": torch.nn.Linear(3, 4), "optimizer": functools.partial(torch.optim.Adam, lr=0.1)}
    return {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": prefixed("net.", STATE),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": MEAN[NAME]}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hyper_parameters": arguments,
    }


def views():
    """Views of one storage, a parameter, and tensors with their numbers in another order."""
    parts = torch.split(torch.cat([x.flatten() for x in STATE.values()]), [x.numel() for x in STATE.values()])
    state = {key: part.view_as(x) for (key, x), part in zip(STATE.items(), parts, strict=True)}
    state[NAME] = torch.nn.Parameter(state[NAME].T.contiguous().T)
    state["stem.proj.weight"] = state["stem.proj.weight"].to(memory_format=torch.channels_last)
    return state


def itself():
    content = {}
    content["content"] = content
    return content


BOTH = {"state_dict": STATE, "state_dict_ema": prefixed("module.", MEAN)}
MODULE = torch.nn.Sequential(torch.nn.Linear(3, 4))
IS_MODULE = r"x.pth: it holds a whole module, whose code would have to be executed: save its state_dict\(\) instead"
CASES = {
    **{
        f"x{suffix}": Case(saved(f"x{suffix}", STATE))
        for suffix in (".pth", ".pth.tar", ".ckpt", ".PTH", ".pt", ".bin")
    },
    "another suffix": Case(saved("x.model", STATE)),
    **{
        f"in {name}": Case(saved("x.pth", lambda name=name: others() | {name: STATE}))
        for name in ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "ema")
    },
    "in several": Case(saved("x.pth", lambda: others() | {"checkpoint": {"ema": {"module": STATE}}})),
    **{
        f"state_dict.{prefix}": Case(saved("x.ckpt", lambda prefix=prefix: {"state_dict": prefixed(prefix, STATE)}))
        for prefix in ("module.", "model.", "module._orig_mod.", "_orig_mod.module.backbone.")
    },
    **{
        dtype: Case(
            saved("x.pth", {key: x.to(getattr(torch, dtype)) for key, x in STATE.items()}),
            weights=cast(cast(TIMM, getattr(ml_dtypes, dtype, dtype)), np.float32),
        )
        for dtype in ("float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2")
    },
    "averaged": Case(
        saved("x.pth", lambda: others() | BOTH),
        weights=AVERAGED,
        warning="averaged weights, state_dict_ema.module; set checkpoint for the others: state_dict",
    ),
    "not averaged": Case(saved("x.pth", BOTH), checkpoint="state_dict"),
    "averaged, by name": Case(saved("x.pth", BOTH), weights=AVERAGED, checkpoint="state_dict_ema.module"),
    "averaged by PyTorch": Case(saved("x.pth", {"n_averaged": torch.tensor(3), **prefixed("module.", STATE)})),
    "several": Case(saved("x.pth", [STATE, MEAN]), "2 sets of weights; to choose one, set checkpoint to 0 or 1$"),
    "one of several": Case(saved("x.pth", [STATE, MEAN]), weights=AVERAGED, checkpoint="1"),
    "Lightning": Case(saved("x.ckpt", lightning)),
    "awkward objects": Case(saved("x.pth", lambda: awkward() | others() | {"model": STATE})),
    "objects of classes that are no dicts": Case(saved("x.pth", {"a": Slots(), "b": History([1]), "model": STATE})),
    "objects of all kinds": Case(
        saved("x.pth", lambda: others() | {"a": Slots(), "model": STATE}),
        "it is damaged, or not .*; or it holds objects of .*, which are not read: save the weights alone",
    ),
    "before 1.6": Case(saved_as_before("x.pth", STATE)),
    "before 1.6, beside others": Case(saved_as_before("x.pth.tar", lambda: others() | {"model": STATE})),
    "before 1.6, awkward objects": Case(saved_as_before("x.pth", lambda: awkward() | {"model": STATE})),
    "views": Case(saved("x.pth", views)),
    "safetensors called pth": Case(safetensors("x.pth", TIMM)),
    "lucidrains": Case(saved("x.pt", {"model": tensors(lucidrains(made()))}), weights=made(), epsilon=1e-5),
    "parts": Case(sharded("pytorch_model.bin", lambda name, arrays: saved(name, tensors(arrays)))),
    "a folder": Case(
        several(
            saved("pytorch_model.bin", STATE),
            text(
                "config.json", {"architecture": "mixer_b16_224", "input_size": [3, 32, 32], "mean": [0.5], "std": [0.5]}
            ),
            load="",
        )
    ),
    "NaN": Case(saved("x.pth", STATE | {NAME: STATE[NAME] * torch.nan}), f"{NAME} holds NaN or infinity"),
    "too large": Case(
        saved("x.pth", STATE | {NAME: STATE[NAME].double() + 1e39}), f"{NAME} holds values too large for"
    ),
    "sparse": Case(
        saved("x.pth", STATE | {NAME: STATE[NAME].to_sparse()}), f"{NAME} is a sparse, quantised or empty tensor"
    ),
    "empty": Case(
        saved("x.pth", STATE | {NAME: STATE[NAME].to("meta")}), f"{NAME} is a sparse, quantised or empty tensor"
    ),
    "protocol 4": Case(saved("x.pth", STATE, pickle_protocol=4), "is pickled in protocol 4, not in 2: save it without"),
    "a module": Case(saved("x.pth", MODULE), IS_MODULE),
    "a module, before 1.6": Case(saved_as_before("x.pth", MODULE), IS_MODULE),
    "a module beside others": Case(saved("x.pth", lambda: others() | {"model": MODULE}), IS_MODULE),
    "an object": Case(saved("x.pth", {"model": Settings()}), "x.pth: it holds no tensors"),
    "arrays": Case(saved("x.pth", dict(TIMM)), "x.pth: it holds no tensors"),
    "numbers": Case(saved("x.pth", {"epoch": 3}), "x.pth: it holds no tensors"),
    "cut": Case(cut(saved("x.pth", STATE)), "it is damaged, or not a file of torch.save: copy it again"),
    "cut, before 1.6": Case(
        cut(saved_as_before("x.pth", STATE)), "it is damaged, or not a file of torch.save: copy it"
    ),
    "a text": Case(text("x.pth", "hello"), "it is damaged, or not a file of torch.save: copy it again"),
    "empty file": Case(data("x.pth", b""), "it is damaged, or not a file of torch.save: copy it again"),
    "garbage": Case(data("x.ckpt", b"garbage" * 99), "it is damaged, or not a file of torch.save: copy it again"),
    "a pickle": Case(data("x.pth", pickle.dumps(TIMM, 2)), "it is damaged, or not a file of torch.save: copy it again"),
    "a reference to itself": Case(saved("x.pth", itself), "cannot read weights .*x.pth: "),
}


@pytest.mark.parametrize("name", CASES)
def test_files(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path.with_name("executed")))
    require(CASES[name], tmp_path, capsys)
    assert not tmp_path.with_name("executed").exists()


@pytest.mark.parametrize("save", [saved, saved_as_before])
def test_damage_gets_one_line(save, tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "executed"))
    save("x.pth", lambda: others() | {"model": STATE})(tmp_path)
    require_lines_for_damage(tmp_path / "x.pth", tmp_path / "x.pth")
    assert not (tmp_path / "executed").exists()


def running(function, program, dump="now", alone=False):
    """Write a file that would call a function with a program, in which MARK is the path of a file to make."""

    def write(to):
        runs = Runs(function, program.replace("MARK", os.environ["MARK"]))
        content = runs if alone else {"model": STATE, "x": runs}
        if isinstance(dump, int):
            (to / "x.pth").write_bytes(pickle.dumps(runs, dump))
        else:
            torch.save(content, to / "x.pth", _use_new_zipfile_serialization=dump == "now")

    return write


def script(to):
    with pytest.warns(FutureWarning):
        torch.jit.script(MODULE).save(to / "x.pth")


def two_in_one(to):
    """Write a pickle that runs a program, with an archive of weights behind it."""
    torch.save(STATE, to / "x.pth")
    program = pickle.dumps(Runs(exec, PROGRAM.replace("MARK", os.environ["MARK"])), 2)
    (to / "x.pth").write_bytes(program + (to / "x.pth").read_bytes())


def two_in_one_archive(to):
    torch.save(STATE, to / "x.pth")
    with zipfile.ZipFile(to / "x.pth", "a") as archive:
        archive.writestr("y/data.pkl", pickle.dumps(Runs(exec, PROGRAM.replace("MARK", os.environ["MARK"])), 2))


SYSTEM, PROGRAM = "touch MARK", "import pathlib; pathlib.Path('MARK').touch()"
HARMFUL = {
    "os.system": Case(
        running(os.system, SYSTEM), "holds 'posix.system', which is code and not weights; nothing was exec"
    ),
    "os.system alone": Case(running(os.system, SYSTEM, alone=True), "x.pth holds 'posix.system', which is code"),
    "os.system, before 1.6": Case(running(os.system, SYSTEM, "before"), "x.pth holds 'posix.system', which is code"),
    "os.system, pickled": Case(running(os.system, SYSTEM, 2), "x.pth holds 'posix.system', which is code"),
    "os.system, in text": Case(running(os.system, SYSTEM, 0), "x.pth holds 'posix.system', which is code"),
    "os.system, in protocol 5": Case(running(os.system, SYSTEM, 5), "x.pth is pickled in protocol 5"),
    "exec": Case(running(exec, PROGRAM), "x.pth holds 'builtins.exec', which is code and not weights"),
    "two in one": Case(two_in_one, "it is damaged, or not a file of torch.save"),
    "two in one archive": Case(two_in_one_archive, "x.pth holds 'builtins.exec', which is code and not weights"),
    "eval": Case(running(eval, "open('MARK', 'w')", 2), "x.pth holds 'builtins.eval', which is code and not weights"),
    "a function": Case(running(mark, "MARK")),
    "an object": Case(saved("x.pth", lambda: {"model": STATE, "x": Settings()})),
    "objects in npz": Case(
        lambda to: np.savez(to / "x.npz", x=np.array([Settings()])), "x is an array of Python objects"
    ),
    "TorchScript": Case(script, IS_MODULE),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_nothing_is_executed(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path.with_name("executed")))
    require(HARMFUL[name], tmp_path, capsys)
    assert not tmp_path.with_name("executed").exists()


def test_the_mark_would_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "executed"))
    for case in ("os.system", "exec", "a function", "an object"):
        HARMFUL[case].write(tmp_path)
        torch.load(tmp_path / "x.pth", weights_only=False)
        (tmp_path / "executed").unlink()
