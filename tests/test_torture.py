"""Kills a real run again and again, at random moments; it has to end as the one that nobody disturbed, bit for bit.

MIXER_JAX_KILLS=50 python -m pytest -m slow -n 0 tests/test_torture.py    (without it, a few kills)
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import pytest

from mixer_jax.checkpoints import Checkpoints
from runs import without_times
from support import ROOT

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MIXER_JAX_KILLS", "4"))
EPOCHS = max(8, 2 * KILLS)
COMMAND = [
    sys.executable, "-m", "mixer_jax.train", "--config", str(ROOT / "configs" / "digits.py"),
    f"--config.epochs={EPOCHS}", "--config.ema_decay=0.99", "--config.checkpoint_minutes=0.004",
]  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the run in a directory; all starts share a compilation cache, as a user's do."""
    environment = os.environ | {"XLA_FLAGS": "", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}

    def start(path, **variables):
        with (path.parent / f"{path.name}.log").open("a") as log:
            command = [*COMMAND, f"--workdir={path}"]
            return subprocess.Popen(command, cwd=ROOT, env=environment | variables, stdout=log, stderr=log)

    return start


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert start(path).wait(600) == 0
    return path


def everything(path):
    """All that a run leaves, times aside."""
    results = without_times(json.loads((path / "results.json").read_text()))
    metrics = [without_times(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    checkpoints = Checkpoints(path / "checkpoints")
    last = checkpoints.read(checkpoints.steps()[-1])
    arrays = {jax.tree_util.keystr(k): x for k, x in jax.tree_util.tree_leaves_with_path((last.state, last.best))}
    return results, metrics, {key: (x.dtype, x.shape, x.tobytes()) for key, x in arrays.items()}


def test_a_run_survives_being_killed_at_any_moment(start, undisturbed, tmp_path):
    begun = time.monotonic()
    assert start(tmp_path / "timed").wait(600) == 0  # as `undisturbed`, but compiled before, as all that follow
    seconds = time.monotonic() - begun
    path, rng, in_training, kill = tmp_path / "run", random.Random(0), 0, 0
    # A machine with other work may take longer to start than these kills leave it: then there are a few more, later.
    while kill < KILLS or not in_training:
        process = start(path)
        time.sleep(seconds * rng.uniform(0.0, 0.6 + 0.1 * max(0, kill - KILLS)))
        assert process.poll() is None, f"ended before kill {kill}: {(tmp_path / 'run.log').read_text()[-500:]}"
        in_training += bool(Checkpoints(path / "checkpoints").steps())
        process.kill()
        process.wait()
        kill += 1
        assert kill < KILLS + 20, "never came as far as a checkpoint"
    assert start(path).wait(600) == 0
    results, metrics, arrays = everything(path)
    expected = everything(undisturbed)
    assert [m["epoch"] for m in metrics] == list(range(1, EPOCHS + 1))
    assert (results, metrics) == expected[:2]
    assert arrays == expected[2]
    assert "warning" not in (tmp_path / "run.log").read_text()


def test_nothing_is_lost_on_a_disk_that_fails_at_random(start, undisturbed, tmp_path):
    """Killed, preempted and hung up on, where one in 30 calls to sync, rename or delete a file fails."""
    path, log, rng = tmp_path / "run", tmp_path / "run.log", random.Random(1)
    failing = {"PYTHONPATH": str(ROOT / "tests" / "failing"), "FAILING_UNDER": str(path)}
    log.touch()
    for attempt in range(KILLS + 60):
        process, told = start(path, **failing), log.stat().st_size
        if attempt < KILLS:
            time.sleep(rng.uniform(1.0, 9.0))
            if process.poll() is None:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]))
        code, lines = process.wait(600), log.read_text()[told:].splitlines()
        if code == 0:
            break
        if code == 2:  # then a line says why
            assert lines[-1].startswith("error: ")
        else:
            assert code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, 128 + signal.SIGTERM, 128 + signal.SIGHUP)
        assert "Traceback" not in "\n".join(lines)
    assert code == 0, log.read_text()[-2000:]
    assert everything(path) == everything(undisturbed)


def test_a_signal_while_the_end_is_scored_ends_it_and_loses_nothing(start, undisturbed, tmp_path):
    path, log = tmp_path / "run", tmp_path / "run.log"
    process = start(path)
    while process.poll() is None and "Scoring" not in log.read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "training is over, and its end is saved: the same command goes on from there" in log.read_text()
    assert not (path / "results.json").exists()
    assert start(path).wait(600) == 0
    assert everything(path) == everything(undisturbed)


def test_nohup_is_obeyed(start, tmp_path):
    path, log = tmp_path / "run", tmp_path / "run.log"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; it is inherited
    try:
        process = start(path)
    finally:
        signal.signal(signal.SIGHUP, before)
    while process.poll() is None and " 2/" not in log.read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(600) == 0


@pytest.mark.parametrize(("signals", "code"), [("TERM", 143), ("HUP", 129), ("INT", 130), ("INT INT", 130)])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(signals, code, start, undisturbed, tmp_path):
    path, log = tmp_path / "run", tmp_path / "run.log"
    process = start(path)
    while process.poll() is None and " 2/" not in log.read_text():
        time.sleep(0.05)
    for name in signals.split():
        process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(60) == code
    if signals != "INT INT":
        assert log.read_text().splitlines()[-1].startswith("stopped at step ")
        assert ": the same command goes on from there" in log.read_text()
    assert start(path).wait(600) == 0
    assert everything(path) == everything(undisturbed)
