"""Every command that the README prints works as it is typed, on small sets and for few steps."""

import importlib
import importlib.util
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from mixer_jax import benchmark
from mixer_jax.errors import UserError
from runs import SHRINK
from support import ROOT, shared

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
COMMANDS = [
    *(line.replace("\\\n", " ") for line in re.findall(r"python -m mixer_jax\.([a-z](?:\\\n|[^`\n])*)", README)),
    *re.findall(r"^\| `(\w+ [^`]*)` \|", README, re.MULTILINE),
]
# What a command takes longest with, made short; and what is not here.
SHORT = {
    "train": [*SHRINK, "--config.batch_size=16"],
    "benchmark": ["--rounds=1", *SHRINK, "--config.optimizer.name=adamw"],
    "parity": ["--steps=3"],
    "fewshot": ["--seeds=1", "--shots=1"],
    "study": ["--report"],  # of nothing that is trained
}
NEEDS = {
    "--against torch": "torch",
    "parity": "torch",
    "--compile_for": "libtpu",
    "demo": "gradio",
    "onnx": "onnxscript",
}


def test_the_readme_has_commands():
    assert {command.split()[0] for command in COMMANDS} >= {
        "train",
        "evaluate",
        "predict",
        "compare",
        "export",
        "study",
    }
    assert len(COMMANDS) > 15


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the clone is, with a run in it and images of one's own."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(ROOT / "configs")
    rng = np.random.default_rng(0)
    for split, label, i in np.ndindex(2, 2, 8):
        path = folder / "images" / ("train", "test")[split] / ("cat", "dog")[label]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (40, 50, 3)).astype(np.uint8)).save(path / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("train", ["--config", "configs/digits.py", *SHORT["train"], "--config.batch_size=64"]) == 0
        images = ["--config.dataset.data_dir=images", "--config.dataset.image_size=32", *SHORT["train"]]
        finetune = ["--workdir=runs/mixer", "--config.model.patch_size=4", *images]
        assert run("train", ["--config", "configs/folder.py", *finetune]) == 0
    return folder


def run(name, arguments):
    return importlib.import_module(f"mixer_jax.{name}").main([name, *arguments])


@pytest.mark.filterwarnings("ignore")  # of PyTorch and its exporter
@pytest.mark.parametrize("command", COMMANDS)
def test_it_works_as_typed(command, folder, monkeypatch):
    for part, package in NEEDS.items():
        if part in command and not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(benchmark, "SECONDS", 0.01)
    monkeypatch.setattr(benchmark, "IMAGES", 64)
    name, *arguments = shlex.split(command.replace("...", "").replace("[--scaling]", ""))
    if name == "demo":
        return  # it would serve until it is interrupted; tests/test_demo.py has it
    stand_ins = {
        "RUN": "runs/digits", "FILE": "configs/digits.py", "IMAGE_OR_FOLDER": "images", "FROM": "runs/mixer",
        "TO": "mixer.npz", "--config.init_from=cifar10": "--config.init_from=runs/mixer",
        "runs/cifar10": "runs/digits",
    }  # fmt: skip
    arguments = [stand_ins.get(argument, argument) for argument in arguments]
    config = next((one for one in arguments if one.startswith("configs/") and one.endswith(".py")), "")
    short = [] if "--compile_for" in arguments else SHORT.get(name, [])
    if "cifar10" in config and name != "compare":
        short = [*short, f"--config.dataset.data_dir={shared('data/tfds')}"]
        if "preview" not in name:
            short += ["--config.dataset.train_split=train[:64]", "--config.dataset.test_split=test[:32]"]
        if "finetune" in config:
            short += ["--config.model.patch_size=4", "--config.augment.input_size=32,32"]
    if name == "train":
        short = [*short, f"--workdir=runs/{abs(hash(command))}"] if "--workdir" not in command else short
    if name == "study":
        with pytest.raises(UserError, match="there is no study in"):
            run(name, [*arguments, *short])
        return
    assert run(name, [*arguments, *short]) == 0
