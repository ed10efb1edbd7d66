"""Kills a real run again and again, at random moments; it has to end as the one that nobody disturbed, bit for bit.

MIXER_JAX_KILLS=50 python -m pytest -m slow -n 0 tests/test_torture.py    (without it, a few kills)
"""

import functools
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
EPOCHS = 8
KILLED_EPOCHS = max(EPOCHS, 2 * KILLS)  # of a run that is to be killed so often
COMMAND = [
    sys.executable, "-m", "mixer_jax.train", "--config", str(ROOT / "configs" / "digits.py"),
    "--config.ema_decay=0.99", "--config.checkpoint_minutes=0.004",
]  # fmt: skip


def patience(epochs):
    """Seconds that a run may take on a slow machine with other work."""
    return 500 + 15 * epochs


@pytest.fixture(scope="module", autouse=True)
def signals_reach_runs():
    """Also where nohup or a shell's & let the tests ignore one, which runs would inherit, as they do no handler."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, lambda *arguments: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the run in a directory; all starts share a compilation cache, as a user's do."""
    environment = os.environ | {"XLA_FLAGS": "", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}

    def start(path, epochs=EPOCHS, **variables):
        with (path.parent / f"{path.name}.log").open("a") as log:
            command = [*COMMAND, f"--config.epochs={epochs}", f"--workdir={path}"]
            return subprocess.Popen(command, cwd=ROOT, env=environment | variables, stdout=log, stderr=log)

    return start


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """All that an undisturbed run of so many epochs leaves."""

    @functools.cache
    def undisturbed(epochs):
        path = tmp_path_factory.mktemp("runs") / "undisturbed"
        assert start(path, epochs).wait(patience(epochs)) == 0
        return everything(path)

    return undisturbed


def seconds_of_a_run(start, path):
    """Until it trains, and from then on to its end."""
    begun = time.monotonic()
    process, log = start(path, KILLED_EPOCHS), path.with_name(f"{path.name}.log")
    while process.poll() is None and "Compiled in" not in log.read_text():
        time.sleep(0.05)
    starting = time.monotonic() - begun
    assert process.wait(patience(KILLED_EPOCHS)) == 0
    return starting, time.monotonic() - begun - starting


def everything(path):
    """All that a run leaves, times aside."""
    results = without_times(json.loads((path / "results.json").read_text()))
    metrics = [without_times(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    checkpoints = Checkpoints(path / "checkpoints")
    last = checkpoints.read(checkpoints.saved_steps()[-1])
    arrays = {jax.tree_util.keystr(k): x for k, x in jax.tree_util.tree_leaves_with_path((last.state, last.best))}
    return results, metrics, {key: (x.dtype, x.shape, x.tobytes()) for key, x in arrays.items()}


def test_a_run_survives_being_killed_at_any_moment(start, undisturbed, tmp_path):
    expected = undisturbed(KILLED_EPOCHS)
    assert [record["epoch"] for record in expected[1]] == list(range(1, KILLED_EPOCHS + 1))
    starting, training = seconds_of_a_run(start, tmp_path / "timed")
    # A run that takes these times is not over before the last kill, but the machine may be faster or slower later.
    longest, rng = starting + 2 * training / KILLS, random.Random(0)
    path, kills, in_training, ended = tmp_path / "run0", 0, 0, 0
    for _ in range(3 * KILLS + 40):
        if kills >= KILLS and in_training:
            break
        log, checkpoints = path.with_name(f"{path.name}.log"), Checkpoints(path / "checkpoints")
        process, before = start(path, KILLED_EPOCHS), checkpoints.saved_steps()
        time.sleep(longest * rng.random())
        saved = checkpoints.saved_steps() != before
        process.kill()
        if process.wait() == 0:  # it was over before; another one is killed, sooner
            assert everything(path) == expected
            ended += 1
            path, longest = tmp_path / f"run{ended}", 0.8 * longest
            continue
        assert process.returncode == -signal.SIGKILL, log.read_text()[-2000:]
        kills += 1
        in_training += saved and "Scoring" not in log.read_text().rpartition("Compiled in")[2]
        if kills >= KILLS:  # none of them came late enough
            longest *= 1.2
    assert kills >= KILLS
    assert in_training
    assert start(path, KILLED_EPOCHS).wait(patience(KILLED_EPOCHS)) == 0
    results, metrics, arrays = everything(path)
    assert (results, metrics) == expected[:2]
    assert arrays == expected[2]
    assert not any("warning" in log.read_text() for log in tmp_path.glob("run*.log"))


def test_nothing_is_lost_on_a_disk_that_fails_at_random(start, undisturbed, tmp_path):
    """Killed, preempted and hung up on, where one in 30 calls to sync, rename or delete a file fails."""
    path, log, rng = tmp_path / "run", tmp_path / "run.log", random.Random(1)
    failing = {"PYTHONPATH": str(ROOT / "tests" / "failing"), "FAILING_UNDER": str(path)}
    log.touch()
    for attempt in range(KILLS + 60):
        process, told = start(path, KILLED_EPOCHS, **failing), log.stat().st_size
        if attempt < KILLS:
            time.sleep(rng.uniform(1.0, 9.0))
            if process.poll() is None:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]))
        code, lines = process.wait(patience(KILLED_EPOCHS)), log.read_text()[told:].splitlines()
        if code == 0:
            break
        if code == 2:  # then a line says why
            assert lines[-1].startswith("error: ")
        else:
            assert code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, 128 + signal.SIGTERM, 128 + signal.SIGHUP)
        assert "Traceback" not in "\n".join(lines)
    assert code == 0, log.read_text()[-2000:]
    assert everything(path) == undisturbed(KILLED_EPOCHS)


def test_a_signal_while_the_end_is_scored_ends_it_and_loses_nothing(start, undisturbed, tmp_path):
    path, log = tmp_path / "run", tmp_path / "run.log"
    process = start(path)
    while process.poll() is None and "Scoring" not in log.read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "training is over, and the final checkpoint is saved: run the same command again" in log.read_text()
    assert not (path / "results.json").exists()
    assert start(path).wait(patience(EPOCHS)) == 0
    assert everything(path) == undisturbed(EPOCHS)


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
    assert process.wait(patience(EPOCHS)) == 0


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
        assert ": run the same command again to resume" in log.read_text()
    assert start(path).wait(patience(EPOCHS)) == 0
    assert everything(path) == undisturbed(EPOCHS)
