"""Two processes with two devices each: they train as one with four, and none waits for a dead one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from runs import without_times
from support import ROOT, shared

pytestmark = pytest.mark.slow

BOUND = 90  # seconds within which a process ends that another has left alone


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """CIFAR-10, some of its images, a small model, and all that is random in training."""
    cache = tmp_path_factory.mktemp("cache")
    arguments = [
        sys.executable, "-m", "mixer_jax.train", "--config", str(ROOT / "configs" / "cifar10.py"),
        f"--config.dataset.data_dir={shared('data/tfds')}", "--config.dataset.train_split=train[:640]",
        "--config.dataset.test_split=test[:200]", "--config.batch_size=32", "--config.epochs=4",
        "--config.model.num_blocks=2", "--config.model.hidden_dim=16", "--config.augment.erasing.probability=0",
        "--config.augment.automatic=none", "--config.checkpoint_steps=7",
    ]  # fmt: skip

    def start(path, log, devices, *flags):
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        environment["XDG_CACHE_HOME"] = str(cache)
        with log.open("w") as file:
            return subprocess.Popen(
                [*arguments, f"--workdir={path}", *flags], cwd=ROOT, env=environment, stdout=file, stderr=file
            )

    return start


@contextmanager
def two(command, path, *of_second):
    """Starts both processes, the second with some flags more; kills what is left of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    logs = [path.parent / f"{path.name}.{i}.log" for i in range(2)]
    flags = [f"--coordinator_address={address}", "--num_processes=2"]
    more = [(), of_second]
    processes = [command(path, log, 2, *flags, f"--process_id={i}", *more[i]) for i, log in enumerate(logs)]
    try:
        yield processes, logs
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def one_process(command, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "run"
    assert command(path, path.parent / "log", 4).wait(300) == 0
    return path


def everything(path):
    metrics = [without_times(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return metrics, without_times(json.loads((path / "results.json").read_text()))


def assert_same(path, expected):
    (metrics, results), (expected_metrics, expected_results) = everything(path), everything(expected)
    for record, other in zip(metrics, expected_metrics, strict=True):
        assert record == pytest.approx(other, rel=1e-4)
    assert results["devices"] == expected_results["devices"] == 4
    assert results["test_loss"] == pytest.approx(expected_results["test_loss"], rel=1e-4)


def wait_for(text, log, process):
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)


def test_they_train_as_one(command, one_process, tmp_path):
    with two(command, tmp_path / "run") as (processes, logs):
        assert [process.wait(300) for process in processes] == [0, 0]
        assert " 4/4 " in logs[0].read_text()
        assert "epoch" not in logs[1].read_text()  # one of them speaks
    assert_same(tmp_path / "run", one_process)


def test_a_checkpoint_every_quarter_of_a_second_does_not_stop_them(command, one_process, tmp_path):
    often = "--config.checkpoint_minutes=0.004"
    with two(lambda *arguments: command(*arguments, often), tmp_path / "run") as (processes, _):
        assert [process.wait(300) for process in processes] == [0, 0]
    assert_same(tmp_path / "run", one_process)


@pytest.mark.parametrize("dying", [0, 1])
def test_when_one_dies_the_other_ends_with_a_message_and_both_resume(dying, command, one_process, tmp_path):
    with two(command, tmp_path / "run") as (processes, logs):
        wait_for(" 2/4 ", logs[0], processes[0])
        processes[dying].kill()
        killed = time.monotonic()
        assert processes[1 - dying].wait(BOUND) not in (0, None)
        assert time.monotonic() - killed < BOUND
        message = logs[1 - dying].read_text()
        assert "another task died" in message or "a process failed or ended: run the same commands again" in message
    with two(command, tmp_path / "run") as (processes, logs):
        assert [process.wait(300) for process in processes] == [0, 0]
        assert "Resuming at step " in logs[0].read_text()
    assert_same(tmp_path / "run", one_process)


def test_when_one_is_asked_to_stop_both_do(command, one_process, tmp_path):
    with two(command, tmp_path / "run") as (processes, logs):
        wait_for(" 2/4 ", logs[0], processes[0])
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(BOUND) for process in processes] == [143, 143]
        assert "stopped at step " in logs[0].read_text()
    with two(command, tmp_path / "run") as (processes, _):
        assert [process.wait(300) for process in processes] == [0, 0]
    assert_same(tmp_path / "run", one_process)


def test_a_mistake_ends_both_with_its_line(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with two(command, tmp_path / "run") as (processes, logs):
        assert [process.wait(BOUND) for process in processes] == [2, 2]
        assert all("holds other files (thesis.tex, ...)" in log.read_text() for log in logs)


def test_data_that_the_first_cannot_read_ends_both_with_a_line(command, tmp_path):
    elsewhere = ("--config.dataset.name=folder", f"--config.dataset.data_dir={tmp_path / 'nowhere'}")
    with two(lambda *arguments: command(*arguments, *elsewhere), tmp_path / "run") as (processes, logs):
        assert [process.wait(BOUND) for process in processes] == [2, 2]
        assert all("there is no folder" in log.read_text() for log in logs)


@pytest.mark.parametrize(
    ("flag", "what"),
    [
        ("--config.seed=1", "config"),
        ("--config.num_seeds=2", "config"),
        ("--config.dataset.test_split=test[:199]", "config"),
    ],
)
def test_processes_that_would_train_something_else_end_with_a_line(flag, what, command, tmp_path):
    with two(command, tmp_path / "run", flag) as (processes, logs):
        assert [process.wait(BOUND) for process in processes] == [2, 2]
        assert all(f"process 1 differs from process 0 in {what}" in log.read_text() for log in logs)
    assert not (tmp_path / "run" / "checkpoints").exists()
