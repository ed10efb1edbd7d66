"""What a user can get wrong, and the line that it gets: exit code 2, within seconds, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mixer_jax import cli, evaluate, preview, train
from mixer_jax.claim import claim
from mixer_jax.records import Epoch
from mixer_jax.run_directory import RunDirectory
from support import ROOT, make_config

DIGITS, FOLDER = (f"--config={ROOT}/configs/{name}.py" for name in ("digits", "folder"))
SECONDS = 20
HALF = "--config.dataset.val_fraction=0.5"  # of a few images

# The arguments of a command, WORK being an empty folder, and how its one line goes on after "error: ".
TRAIN = [
    ("", "no config: give one with --config"),
    ("--config=missing.py", "no config file missing.py"),
    (f"--config={ROOT}/README.md", "/README.md is not a Python file"),
    (f"--config={ROOT}/configs", "no config file "),
    ("--config=WORK/syntax.py", "WORK/syntax.py: SyntaxError: "),
    ("--config=WORK/raises.py", "WORK/raises.py: ZeroDivisionError: division by zero"),
    ("--config=WORK/nothing.py", "WORK/nothing.py has no function get_config(arg=None)"),
    ("--config=WORK/none.py", "WORK/none.py: get_config returns NoneType, not a ConfigDict"),
    ("--config=WORK/field.py", "unknown config field 'epocs' (did you mean 'epochs'?)"),
    ("--config=WORK/unset.py", "config.epochs=None: expects float"),
    ("--config=WORK/type.py", "WORK/type.py: TypeError: Could not override field 'seed'"),
    (f"{DIGITS}:argument", "configs/digits.py: TypeError: get_config() takes 0 positional arguments"),
    (f"--config={ROOT}/configs/mixer_nano_cifar10.py:1M", "unknown number of parameters '1M'"),
    (f"{DIGITS} --wrkdir=x", "unknown flag --wrkdir (did you mean 'workdir'?)"),
    (f"{DIGITS} extra", "unexpected argument 'extra'"),
    (f"{ROOT}/configs/digits.py", "digits.py': give the config as --config "),
    (f"{DIGITS} --batch_size=3", "unknown flag --batch_size (did you mean --config.batch_size?)"),
    (
        f"{DIGITS} --config.dataset.hold_out=by_clas",
        "unknown config.dataset.hold_out 'by_clas' (did you mean 'by_class'?)",
    ),
    (f"{DIGITS} --overwrite=perhaps", "flag --overwrite=perhaps: "),
    (f"{DIGITS} --config.epocs=3", "unknown config field 'epocs' (did you mean 'epochs'?)"),
    (
        f"{DIGITS} --config.learning_rate=3",
        "unknown config field 'learning_rate' (did you mean 'optimizer.learning",
    ),
    (f"{DIGITS} --config.model=S/4", "unknown config field 'model'"),
    (f"{DIGITS} --config.epochs=ten", "config.epochs='ten': expects float"),
    (f"{DIGITS} --config.epochs=-2", "config.epochs=-2.0: must be positive, or -1"),
    (f"{DIGITS} --config.epochs=nan", "config.epochs=nan: must be finite"),
    (f"{DIGITS} --config.epochs=1e300", "config.epochs=1e+300: too large a number"),
    (f"{DIGITS} --config.epochs=1e30", "config.epochs=1e+30 needs more than 2**31 - 1 steps"),
    (f"{DIGITS} --config.seed=1.5", "config.seed='1.5': expects int"),
    (f"{DIGITS} --config.seed=-1", "config.seed=-1: must be in 0..2147483647"),
    (f"{DIGITS} --config.num_seeds=0", "config.num_seeds=0: must be in 1..1000"),
    (f"{DIGITS} --config.num_seeds=99999999", "config.num_seeds=99999999: must be in 1..1000"),
    (f"{DIGITS} --config.batch_size=0", "config.batch_size=0: must be positive"),
    (f"{DIGITS} --config.batch_size=63", "config.batch_size=63 is not divisible by 4 devices"),
    (f"{DIGITS} --config.accumulation_steps=7", "config.batch_size=64 is not divisible by config.accumulation_steps=7"),
    (f"{DIGITS} --config.dtype=float16", "config.dtype=float16: must be auto, float32 or bfloat16"),
    (f"{DIGITS} --config.label_smoothing=1", "config.label_smoothing=1.0: must be in [0, 1)"),
    (f"{DIGITS} --config.ema_decay=1", "config.ema_decay=1.0: must be in [0, 1)"),
    (f"{DIGITS} --config.checkpoint_minutes=0", "config.checkpoint_minutes=0.0: must be positive"),
    (f"{DIGITS} --config.checkpoint_steps=-1", "config.checkpoint_steps=-1: must not be negative"),
    (f"{DIGITS} --config.optimizer.name=adamm", "unknown config.optimizer.name 'adamm' (did you mean 'adam'?)"),
    (f"{DIGITS} --config.optimizer.learning_rate=0", "config.optimizer.learning_rate=0.0: must be positive"),
    (f"{DIGITS} --config.optimizer.b1=1", "config.optimizer.b1=1.0: must be in [0, 1)"),
    (f"{DIGITS} --config.schedule.name=cosin", "unknown config.schedule.name 'cosin' (did you mean 'cosine'?)"),
    (f"{DIGITS} --config.model.variant=S/", "model variant 'S/' needs a patch size in pixels"),
    (f"{DIGITS} --config.model.variant=Q/4", "unknown model variant 'Q/4'"),
    (f"{DIGITS} --config.model.patch_size=3", "image size 8x8 is not divisible by patch size 3"),
    (f"{DIGITS} --config.model.hidden_dim=0", "config.model.hidden_dim=0: must be at least 1"),
    (f"{DIGITS} --config.model.hidden_dim=2000000", "config.model: "),
    (f"{DIGITS} --config.model.num_blocks=9999999", "config.model.num_blocks=9999999: must be in 1..1000"),
    (f"{DIGITS} --config.model.gelu=relu", "unknown config.model.gelu 'relu'"),
    (f"{DIGITS} --config.model.dropout_rate=1", "config.model.dropout_rate=1.0: must be in [0, 1)"),
    (f"{DIGITS} --config.augment.crop=padd", "unknown config.augment.crop 'padd' (did you mean 'pad'?)"),
    (f"{DIGITS} --config.augment.automatic=autoaugment", "unknown config.augment.automatic 'autoaugment'"),
    (
        f"{DIGITS} --config.augment.rand_augment.magnitude=31",
        "config.augment.rand_augment.magnitude=31: must be",
    ),
    (f"{DIGITS} --config.augment.erasing.area=0.5,0.1", "config.augment.erasing.area=(0.5, 0.1): must be LOW,HIGH"),
    (f"{DIGITS} --config.dataset.name=cifar11", "unknown dataset 'cifar11' (did you mean 'cifar10"),
    (f"{DIGITS} --config.dataset.name=fashion-mnist", "unknown dataset 'fashion-mnist' (did you mean 'fashion_mnist"),
    (f"{DIGITS} --config.dataset.name=mnist:9.9.9", "unknown dataset 'mnist:9.9.9'"),
    (f"{DIGITS} --config.dataset.train_split=training", "unknown split of digits 'training'"),
    (
        f"{DIGITS} --config.dataset.val_fraction=1",
        "config.dataset.val_fraction=1.0 of 1437 training images leaves",
    ),
    (
        f"{DIGITS} --config.dataset.image_size=16",
        "config.dataset.image_size: digits are 8x8; to scale them",
    ),
    (f"{DIGITS} --config.dataset.normalization=none", "unknown config.dataset.normalization 'none'"),
    (FOLDER, "config.dataset.data_dir is not set"),
    (f"{FOLDER} --config.dataset.data_dir=WORK/none", "there is no folder WORK/none: give the folder of the images"),
    (f"{FOLDER} --config.dataset.data_dir=WORK/empty", "no images in WORK/empty (1 folder without an image (train)); "),
    (
        f"{FOLDER} --config.dataset.data_dir=WORK/hollow",
        "no images in WORK/hollow (1 folder without an image (train/cat)",
    ),
    (
        f"{FOLDER} --config.dataset.data_dir=WORK/broken {HALF}",
        "1 of 4 image files in WORK/broken cannot be read (train/cat/0.png: ",
    ),
    (
        f"{FOLDER} --config.dataset.data_dir=WORK/bomb {HALF}",
        "1 of 4 image files in WORK/bomb cannot be read (train/cat/0.png: Image size (400000000 pixels) exceeds",
    ),
    (f"{FOLDER} --config.dataset.data_dir=WORK/file", "WORK/file is not a folder: give the folder of the images"),
    (
        f"{FOLDER} --config.dataset.data_dir=WORK --config.dataset.on_error=skipp",
        "unknown config.dataset.on_error 'skipp' (did you mean 'skip'?)",
    ),
    (
        f"{FOLDER} --config.dataset.data_dir=WORK --config.dataset.layout=atuo",
        "unknown config.dataset.layout 'atuo' (did you mean 'auto'?)",
    ),
    (
        f"{FOLDER} --config.dataset.data_dir=WORK/classes {HALF}",
        "WORK/classes: dog has images, but none for training: move some",
    ),
    (f"{DIGITS} --workdir=WORK/foreign", "workdir WORK/foreign holds other files (thesis.tex, ...)"),
    (f"{DIGITS} --workdir=WORK/file", "cannot use workdir WORK/file: Not a directory"),
    (f"{DIGITS} --workdir=WORK/run", "run holds a run with another config (augment.crop: none in the run, pad now; "),
    (f"{DIGITS} --workdir=WORK/cut", "cannot read WORK/cut/config.json: "),
    (f"{DIGITS} --workdir=WORK/odd", "cannot read WORK/odd/config.json: "),
    (f"{DIGITS} --num_processes=2", "coordinator_address is missing: give all of"),
    (f"{DIGITS} --coordinator_address=x:1 --num_processes=2 --process_id=2", "process_id=2: must be in 0..1"),
]
EVALUATE = [
    ("", "no model: give one with --workdir"),
    ("--workdir=WORK/none", "there is no run directory or file WORK/none"),
    ("--workdir=WORK/foreign", "WORK/foreign is not a run directory: it has no config.json"),
    ("--workdir=WORK/run --split=tset", "unknown split 'tset' (did you mean 'test'?)"),
    ("--workdir=WORK/run --batch_size=0", "--batch_size=0: 0 is not a positive integer"),
    ("--workdir=WORK/run", "there is no checkpoint in WORK/run/checkpoints"),
    ("--workdir=WORK/cut", "cannot read WORK/cut/config.json: "),
    ("--workdir=WORK/odd", "cannot read WORK/odd/config.json: "),
    (
        "--workdir=WORK/undescribed",
        "cannot read WORK/undescribed/config.json: its description of the dataset is invalid",
    ),
    ("--wrkdir=x", "unknown flag --wrkdir (did you mean 'workdir'?)"),
    ("--workdir=WORK/run more", "unexpected argument 'more'"),
]
PREVIEW = [
    ("", "no config: give one"),
    (f"{DIGITS} --config.augment.flip=up", "unknown config.augment.flip 'up'"),
    (
        f"{DIGITS} --output=WORK/file/x.png",
        "cannot write WORK/file/x.png: WORK/file is not a folder",
    ),
]
TABLE = [
    *((train.main, *row) for row in TRAIN),
    *((evaluate.main, *row) for row in EVALUATE),
    *((preview.main, *row) for row in PREVIEW),
]


def test_the_table_is_long_enough():
    assert len(TABLE) >= 60


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder of things that go wrong."""
    work = tmp_path_factory.mktemp("work")
    default = "from mixer_jax.config import default_config\ndef get_config():\n    config = default_config()\n"
    for name, text in {
        "syntax": "def get_config(:", "raises": "def get_config(): return 1 / 0", "nothing": "x = 1",
        "none": "def get_config(): return None", "field": f"{default}    config.epocs = 3\n    return config",
        "type": f"{default}    config.seed = 'x'\n    return config",
        "unset": f"{default}    config.epochs = None\n    return config",
    }.items():  # fmt: skip
        (work / f"{name}.py").write_text(text)
    image = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    for folder, classes in {"broken": ("cat", "dog"), "bomb": ("cat", "dog"), "classes": ("cat", "dog")}.items():
        for split in ("train", "test"):
            for label in classes if folder != "classes" or split == "test" else ("cat",):
                (work / folder / split / label).mkdir(parents=True)
                image.save(work / folder / split / label / "0.png")
    (work / "broken" / "train" / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    Image.new("1", (20_000, 20_000)).save(work / "bomb" / "train" / "cat" / "0.png")
    (work / "empty" / "train").mkdir(parents=True)
    (work / "hollow" / "train" / "cat").mkdir(parents=True)
    (work / "foreign").mkdir()
    (work / "foreign" / "thesis.tex").write_text("mine")
    (work / "file").write_text("")
    described = {"label_names": ["a", "b"], "image_shape": [8, 8, 1], "mean": [0.5], "std": [0.5]}
    for name, dataset in {"run": described, "undescribed": {"mean": "x"}}.items():
        run = RunDirectory(work / name)
        with run.locked():
            claim(run, make_config(batch_size=32), dataset)
            run.append_metrics(Epoch(epoch=1, step=30))
    for name, text in {"cut": '{"config": ', "odd": json.dumps({"config": {"epochs": "many"}, "dataset": {}})}.items():
        (work / name).mkdir()
        (work / name / "config.json").write_text(text)
    return work


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("main", "arguments", "line"), TABLE)
def test_a_mistake_gets_its_line_and_leaves_nothing(main, arguments, line, work, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", *arguments.replace("WORK", str(work)).split()])
    monkeypatch.setattr(cli, "keep_compiled", lambda: None)
    before, start = contents(work), time.monotonic()
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    seconds, error = time.monotonic() - start, capsys.readouterr().err
    assert caught.value.code == 2
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert line.replace("WORK", str(work)) in error
    assert seconds < SECONDS
    assert contents(work) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", ["--help", f"{ROOT}/configs/results/published_cifar10.json --output=out"])
def test_a_reader_who_has_seen_enough_gets_no_traceback(arguments, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "mixer_jax.compare", *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
