"""Command lines and config files that are wrong get one line that says what to do."""

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mixer_jax import cache, cli
from mixer_jax.cache import _processor_key, cores
from mixer_jax.errors import UserError
from support import ROOT

DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"


def parse(*arguments):
    def define_flags(define):
        define.string("workdir", None, "directory")

    return cli.parse(["program", *arguments], define_flags, "usage")


def test_fields_are_overridden_with_their_types():
    values, config, name = parse(
        DIGITS, "--config.epochs=3", "--config.seed", "7", "--noconfig.model.token_mixing", "--workdir=x",
        "--config.dataset.image_size=3,4", "--config.model.patch_size=4",
    )  # fmt: skip
    assert (values.workdir, name) == ("x", "digits")
    assert (config.epochs, config.seed, config.model.token_mixing) == (3.0, 7, False)
    assert (config.dataset.image_size, config.model.patch_size) == ((3, 4), 4)


def test_a_config_file_may_take_an_argument_and_leave_fields_out(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg='1'):\n"
        "    return ConfigDict({'epochs': int(arg), 'model': {'variant': 'S/4'}})\n"
    )
    _, config, name = parse(f"--config={file}:5", "--config.optimizer.name=sgd")
    assert (config.epochs, config.model.variant, config.optimizer.name, name) == (5.0, "S/4", "sgd", "mine_5")
    assert config.batch_size == 128


def test_a_flag_may_name_a_file_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("from mixer_jax.config import default_config as get_config\n")
    define = lambda define: define.string("output", None, "")  # noqa: E731
    arguments = ["c", "--config=~/mine.py", "--output=~", "--config.dataset.name=~/x"]
    values, config, _ = cli.parse(arguments, define, "usage")
    assert values.output == str(tmp_path)
    assert config.dataset.name == "~/x"  # fields are expanded where they are used


def test_a_shipped_config_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, by_name, name = parse("--config=digits", "--config.seed=7")
    _, by_path, _ = parse(DIGITS, "--config.seed=7")
    assert (by_name.to_dict(), name) == (by_path.to_dict(), "digits")
    assert parse("--config=mixer_nano_cifar10:0.67M")[2] == "mixer_nano_cifar10_0.67M"


def test_every_shipped_config_is_found_in_any_folder(tmp_path):
    program = (
        "from mixer_jax import config_files as files; import sys\n"
        "for name in files.shipped(): files.get_config(name)\n"
        "for name in ('mnist_study', 'cifar10_study'): files.call_in(name, 'get_arms')\n"
        "assert 'configs' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DIGITS, "--config.optimizer.lr=3"], "unknown config field 'optimizer.lr'"),
        ([DIGITS, "--config.dataset=3"], "unknown config field 'dataset'"),
        ([DIGITS, "--config.model.token_mixing=perhaps"], "config.model.token_mixing='perhaps': expects bool"),
        ([DIGITS, "--config.epochs"], "Missing value for flag --config.epochs"),
        ([DIGITS, "--config.epochs=0"], "config.epochs=0.0: must be positive"),
        ([DIGITS, "--config.epochs=inf"], "config.epochs=inf: must be finite"),
        ([DIGITS, f"--config.batch_size=1{400 * '0'}"], "config.batch_size=10*: too large a number"),
        ([DIGITS, "--config.schedule.warmup_epochs=-1"], "config.schedule.warmup_epochs=-1.0: must not be negative"),
        ([DIGITS, "--config.schedule.decay_epochs=0"], "config.schedule.decay_epochs=0.0: must be positive"),
        ([DIGITS, "--config.early_stopping_patience=-1"], "config.early_stopping_patience=-1: must not be negative"),
        ([DIGITS, "--epochs=3"], r"unknown flag --epochs \(did you mean --config.epochs\?\)"),
        (
            [DIGITS, "--learning_rate=3"],
            r"unknown flag --learning_rate \(did you mean --config.optimizer.learning_rate",
        ),
        (
            ["configs/digits.py"],
            "unexpected argument 'configs/digits.py': give the config as --config configs/digits.py",
        ),
        (["--config=digts"], r"no config file digts \(did you mean 'digits'\?\)"),
        (["--config=configs/cifar.py"], r"no config file configs/cifar.py \(did you mean 'cifar10'\?\)"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message) as caught:
        parse(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"mine.py has no function get_config\(arg=None\)"),
        ("def get_config(:", "mine.py: SyntaxError: invalid syntax"),
        ("def get_config():\n    return {}", "get_config returns dict, not a ConfigDict"),
        (
            "from mixer_jax.config import default_config\n"
            "def get_config():\n    config = default_config()\n    config.epocs = 3\n    return config",
            "unknown config field 'epocs' .did you mean 'epochs'",
        ),
        (
            "from mixer_jax.config import default_config\n"
            "def get_config():\n    config = default_config()\n    config.seed = 'x'\n    return config",
            "mine.py: TypeError: .*seed",
        ),
        (
            "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'seed': 1.5})",
            "config.seed=1.5: expects int",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_a_config_file(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        parse(f"--config={tmp_path / 'mine.py'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("workdir", "expected"),
    [
        ("run", "run/evaluation/test_best"),
        ("~/run", "~/run/evaluation/test_best"),
        ("cifar10", "evaluation/cifar10/test_best"),  # beside a folder of images of that name
        ("run/weights.npz", "evaluation/weights.npz/test_best"),
        ("mnist", "evaluation/mnist/test_best"),  # not mnist/, which would look like a model of that name
        ("timm/mixer_b16_224.goog_in21k", "evaluation/timm_mixer_b16_224.goog_in21k/test_best"),
        ("https://host/a b.npz?x", "evaluation/https_host_a_b.npz_x/test_best"),
    ],
)
def test_where_the_results_of_a_command_go(workdir, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("run", "cifar10"):
        (tmp_path / folder).mkdir()
    for file in ("config.json", "weights.npz"):
        (tmp_path / "run" / file).touch()
    assert cli.folder(None, workdir, "evaluation/test_best") == Path(expected).expanduser()
    assert cli.folder("mine", workdir, "evaluation/test_best") == Path("mine")


def test_help_shows_the_flags(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "usage" in out
    assert "--workdir" in out
    assert "flagfile" not in out  # absl's own


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "caches"}, f"caches/mixer_jax/*-????????-{cores()}"),
        ({"XDG_CACHE_HOME": "caches", "JAX_COMPILATION_CACHE_DIR": "mine"}, "mine"),
        ({"XDG_CACHE_HOME": "file"}, "None"),  # not a folder: does without
    ],
)
def test_where_compiled_programs_are_kept(environment, expected, tmp_path):
    (tmp_path / "file").write_text("")
    program = "import jax, mixer_jax.cache as c; c.keep_compiled(); print(jax.config.jax_compilation_cache_dir)"
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert fnmatch.fnmatch(process.stdout.strip(), expected)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are not for a process to choose here")
def test_a_program_compiled_for_one_core_is_no_others():
    allowed = os.sched_getaffinity(0)
    all_of_them = _processor_key()
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
        assert (_processor_key() == all_of_them) == (len(allowed) == 1)
    finally:
        os.sched_setaffinity(0, allowed)


def test_importing_the_package_changes_nothing_and_commands_start_as_python_is_told_to(tmp_path):
    """Real processes, because what was wrong once hung on how Python itself was called."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    for start in (["-um", "mixer_jax.compare"], ["-Bm", "mixer_jax.compare"], ["-mmixer_jax.compare"]):
        process = subprocess.run([sys.executable, *start, "--help"], env=environment, capture_output=True, text=True)
        assert (process.returncode, process.stderr) == (0, "")
        assert "python -m mixer_jax.compare RUN_OR_STUDY" in process.stdout
    program = "import gc, sys; sys.argv = ['-m']; before = gc.isenabled(), gc.get_threshold()\n"
    program += "import mixer_jax, mixer_jax.models; assert (gc.isenabled(), gc.get_threshold()) == before"
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0


def test_the_package_itself_lists_its_commands():
    says = subprocess.run(
        [sys.executable, "-m", "mixer_jax"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    files = {path.stem for path in (ROOT / "mixer_jax").glob("*.py") if "cli.run(main)" in path.read_text()}
    assert {line.split()[0] for line in says.splitlines()[2:]} == files


def test_a_terminal_that_knows_ascii_alone_gets_no_traceback(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    study = ROOT / "configs" / "results" / "mnist_study" / "comparison.json"
    command = [sys.executable, "-m", "mixer_jax.compare", str(study), f"--output={tmp_path / 'out'}"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert "98.09 ? 0.18" in process.stdout


def test_an_interrupt_does_not_wait_for_threads():
    program = (
        "import threading, time; from mixer_jax import cli\n"
        "def main(argv):\n"
        "    threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "    print('begun')\n"
        "    raise KeyboardInterrupt\n"
        "cli.run(main)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (process.returncode, process.stdout, process.stderr) == (130, "begun\n", "interrupted\n")


XLA = jax.errors.JaxRuntimeError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (XLA("INTERNAL: Error dispatching: Out of memory allocating 8 bytes."), "Out of memory allocating 8 bytes"),
        (XLA("RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB"), "Failed to allocate request for 2.99GiB"),
        (XLA("RESOURCE_EXHAUSTED: XLA:TPU: Ran out of memory in hbm.\nTotal"), "XLA:TPU: Ran out of memory in hbm"),
        (MemoryError("Unable to allocate 5 GiB for an array"), "Unable to allocate 5 GiB for an array"),
        (MemoryError(), "this machine has no more"),
        (XLA("INVALID_ARGUMENT: wrong shape"), ""),
        (ValueError("ran out of memory"), ""),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, said):
    assert cli._lack_of_memory(error) == said


@pytest.mark.slow
def test_a_step_that_does_not_fit_gets_one_line(tmp_path):
    program = "import resource as r; r.setrlimit(r.RLIMIT_AS, (2**34, 2**34)); from mixer_jax.train import main; "
    program += "from mixer_jax import cli; cli.run(main)"
    fields = {"patch_size": 1, "num_blocks": 1, "hidden_dim": 2**16, "tokens_mlp_dim": 1, "channels_mlp_dim": 1}
    flags = [DIGITS, *(f"--config.model.{field}={value}" for field, value in fields.items())]
    flags += ["--config.batch_size=1280", "--config.accumulation_steps=1", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-c", program, *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": ""}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    line = r"error: too little memory: Out of memory allocating \d+ bytes; smaller batches or images need less\n"
    assert (process.returncode, bool(re.fullmatch(line, process.stderr))) == (2, True), process.stderr


def test_the_cache_keeps_what_was_used_last(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "DECODED_BYTES", 250)
    monkeypatch.setattr(cache, "COMPILED_BYTES", 150)
    for folder in ("decoded", "x86_64-01234567-2"):
        (tmp_path / "mixer_jax" / folder).mkdir(parents=True)
        for age in range(4):
            file = tmp_path / "mixer_jax" / folder / str(age)
            file.write_bytes(bytes(100))
            os.utime(file, (1e9 - age, 1e9 - age))
    (tmp_path / "mine").write_bytes(bytes(1000))
    cache.tidy()
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["mine", "mixer_jax/decoded/0", "mixer_jax/decoded/1", "mixer_jax/x86_64-01234567-2/0"]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("config.dataset.data_dir=x: no such folder", "--data_dir=x: no such folder"),
        ("set config.dataset.on_error=skip", "set --on_error=skip"),
        ("set config.dataset.layout=auto", "set config.dataset.layout=auto; this command has no flag for it"),
    ],
)
def test_an_error_about_the_data_names_what_the_command_has(error, shown):
    with pytest.raises(UserError) as raised, cli.naming_flags():
        raise UserError(error)
    assert str(raised.value) == shown
