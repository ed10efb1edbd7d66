"""The console on a terminal and in a pipe, the curves, the log of single steps, and TensorBoard."""

import io
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mixer_jax.records import Epoch
from mixer_jax.reporting import ConsoleProgress, LiveCurves, StepLog, TensorBoard, chosen_steps, plot_curves
from mixer_jax.reporting import curves as curves_module
from mixer_jax.reporting import progress as progress_module
from mixer_jax.reporting.observer import Dispatch
from mixer_jax.reporting.progress import SeedsProgress
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.epoch import Sums
from mixer_jax.training.trainer import Scores

RATES = dict.fromkeys(range(1, 31), 1.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(epoch, val_accuracy=50.0):
    return Epoch(
        epoch=epoch, step=10 * epoch, train_loss=2 / epoch, train_accuracy=40.0, learning_rate=1e-3,
        images_per_second=160.0, seconds=1.0, val_loss=1.5 / epoch, val_accuracy=val_accuracy,
    )  # fmt: skip


def dispatch(first, step, losses=None, accuracies=None):
    """Steps whose metrics tell their number."""
    numbers = np.arange(first + 1, step + 1, dtype=float)
    losses, accuracies = (numbers if x is None else np.array(x) for x in (losses, accuracies))
    return Dispatch(first, losses, accuracies, numbers / 10, images_per_second=1234.5)


def follow(file, history=()):
    console = ConsoleProgress(num_epochs=3, total_steps=30, batch_size=16, file=file)
    console.started(list(history), step=history[-1].step if history else 0, compile_seconds=1.25)
    best = record(1, 60.0)
    for epoch in range(len(history) + 1, 4):
        console.progress(dispatch(10 * epoch - 7, 10 * epoch - 5, losses=[9.0, 1.2345], accuracies=[41.0, 42.0]))
        console.epoch(best if epoch == 1 else record(epoch), best)
    console.closed()
    return file.getvalue()


def test_no_bar_stays_at_its_end_while_something_else_goes_on():
    file = Terminal()
    console = ConsoleProgress(num_epochs=1, total_steps=30, batch_size=16, file=file)
    console.started([], 0, 1.0)
    console.progress(dispatch(20, 30))
    console.validating()
    assert file.getvalue().rstrip().endswith("validation")
    console.note("Writing the last checkpoint")
    assert console._bar is None


def test_several_seeds_are_shown_as_one_run(capsys):
    """Means and the deviation over the seeds, the images of all; the second seed stops after two of three epochs."""
    console = SeedsProgress(num_epochs=3, total_steps=30, batch_size=32, seeds=[4, 5])
    first, second = console.observers
    first.note("Compiling")
    second.note("Compiling")
    for seed in (first, second):
        seed.started((), 0, 2.0)
    for epoch, accuracies in ((1, (50.0, 60.0)), (2, (70.0, 74.0)), (3, (80.0,))):
        if epoch == 3:
            second.note("stopped early")
            second.closed()
        for seed, accuracy in zip((first, second), accuracies, strict=False):
            seed.epoch(record(epoch, accuracy), record(epoch))
    first.closed()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Compiling", "Compiled in 2.0 s", f"{progress_module.HEADER}   \u00b1val"]
    assert lines[3] == "      1/3     2.0000    40.00%     1.5000    55.00%         320     00:02 \u00b17.07"
    assert lines[4] == "      2/3     1.0000    40.00%     0.7500    72.00%         320     00:01 \u00b12.83"
    assert lines[5] == "seed 5: stopped early"
    assert lines[6] == "Still training: 1 of 2 seeds"
    # The seed that stopped counts with its last epoch.
    assert lines[7].split()[:5] == ["3/3", "0.8333", "40.00%", "0.6250", "77.00%"]
    assert lines[7].endswith("160     00:00 \u00b14.24")
    assert len(lines) == 8
    assert max(map(len, lines)) <= 80


def test_the_time_left_is_that_of_the_seeds_in_training(capsys):
    console = SeedsProgress(num_epochs=11, total_steps=110, batch_size=80, seeds=range(5))
    for seed in console.observers:
        seed.started((), 0, 1.0)
    for seed in console.observers[1:]:
        seed.closed()
    console.observers[0].epoch(record(1, 50.0), record(1))  # 10 steps of 16 images, at 160 images/s
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "00:10"


def test_an_epoch_of_less_than_an_image_in_twenty_seconds_is_shown():
    slow = Sums(loss=4.0, correct=1, steps=2, seconds=90.0).epoch(1, 2, 2, 0.1, Scores(1.0, 50.0, 1, 2))
    assert slow.images_per_second == pytest.approx(4 / 90)
    console = ConsoleProgress(1, 4, 2, file=io.StringIO())
    console.epoch(slow, slow)
    assert console._file.getvalue().split()[-1] == "01:30"


def test_a_pipe_gets_a_plain_line_an_epoch():
    lines = follow(io.StringIO()).splitlines()
    assert lines[0] == "Compiled in 1.2 s"
    assert len(lines) == 5
    assert lines[1] == progress_module.HEADER
    assert lines[2] == "      1/3     2.0000    40.00%     1.5000    60.00%*        160     00:02"
    assert lines[3].endswith("0.7500    50.00%         160     00:01")
    assert max(map(len, lines)) <= 80


def test_a_pipe_gets_a_sign_of_life_in_a_long_epoch(monkeypatch):
    monkeypatch.setattr(progress_module, "PLAIN_LINE_SECONDS", 0.0)
    text = follow(io.StringIO())
    assert "epoch 1/3, step 5/30: loss 1.2345, accuracy 41.50%, 1,234 images/s, 00:00 left" in text


def test_a_terminal_gets_a_bar():
    text = follow(Terminal())
    assert "epoch 1/3" in text
    assert "loss 1.2345, accuracy 41.50%, 1,234 images/s" in text
    assert "\r" in text
    assert all(f"{epoch}/3     {loss:.4f}" in text for epoch, loss in ((1, 2.0), (2, 1.0), (3, 2 / 3)))


def test_a_resumed_run_says_so_and_counts_on():
    lines = follow(io.StringIO(), history=[record(1)]).splitlines()
    assert lines[1] == "Resuming at step 10 of 30, in epoch 2/3"
    assert lines[3].startswith("      2/3 ")


def test_curves_are_drawn_even_for_one_epoch(tmp_path):
    for n in (1, 5):
        plot_curves([[record(e, val_accuracy=50.0 + e) for e in range(1, n + 1)]], tmp_path / f"{n}.png", "title")
        image = np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB")).astype(int)
        # The three panels carry ink in the colour of their line.
        blue, green = np.abs(image - [31, 119, 180]).sum(-1) < 30, np.abs(image - [44, 160, 44]).sum(-1) < 30
        width = image.shape[1]
        assert blue[:, : width // 3].any()
        assert blue[:, width // 3 : 2 * width // 3].any()
        assert green[:, 2 * width // 3 :].any()


def test_in_a_notebook_the_curves_change_in_place(tmp_path, monkeypatch):
    shown = []

    class Handle:
        def update(self, image):
            shown.append(("updated", image))

    def display(image, display_id):
        shown.append(("displayed", image))
        return Handle()

    shell = SimpleNamespace(kernel="a kernel")
    images = SimpleNamespace(Image=lambda data, width: data, display=display)
    ipython = SimpleNamespace(version_info=(9, 0), get_ipython=lambda: shell, display=images)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(curves_module, "DRAWING_SHARE", 1e9)
    curves = LiveCurves(tmp_path / "curves.png", "title")
    observer = curves.observer()
    for epoch in range(1, 4):
        observer.epoch(record(epoch), record(1))
    assert [what for what, _ in shown] == ["displayed", "updated", "updated"]
    assert shown[-1][1] == (tmp_path / "curves.png").read_bytes()
    del shell.kernel  # a terminal's IPython
    observer.epoch(record(4), record(1))
    assert len(shown) == 3


@pytest.mark.parametrize("ended", [1, 2])  # the epoch that the resumed run's checkpoint is of
def test_tensorboard_shows_of_a_resumed_run_what_counts(tmp_path, ended):
    def write(done, accuracy):
        board = TensorBoard(tmp_path / "scalars", RATES)
        board.started([record(epoch) for epoch in range(1, done + 1)], step=10 * done, compile_seconds=1.0)
        for epoch in range(done + 1, 4):
            board.progress(dispatch(10 * epoch - 10, 10 * epoch, accuracies=[accuracy] * 10))
            board.epoch(record(epoch, accuracy), record(1))
        board.closed()

    write(0, 60.0)
    time.sleep(1.1)  # it names its files by the second
    write(ended, 70.0)
    files = set((tmp_path / "scalars").iterdir())
    write(3, 80.0)  # a finished one leaves nothing
    assert set((tmp_path / "scalars").iterdir()) == files
    assert len(files) == 2
    events = EventAccumulator(str(tmp_path / "scalars"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("val/accuracy")]
    assert shown == [(10 * epoch, 60.0 if epoch <= ended else 70.0) for epoch in (1, 2, 3)]
    shown = [(event.step, event.value) for event in events.Scalars("step/accuracy")]
    assert shown == [(step, 60.0 if step <= 10 * ended else 70.0) for step in range(1, 31)]
    assert [event.value for event in events.Scalars("step/gradient_norm")] == pytest.approx(np.arange(1, 31) / 10)


@pytest.mark.parametrize("lengths", [[4000], [1] * 4000, [7, 1993, 500, 1500]])
def test_the_logged_steps_do_not_depend_on_the_length_of_dispatches(tmp_path, lengths):
    run, rates, step = RunDirectory(tmp_path), {chosen: 0.1 / chosen for chosen in chosen_steps(4000)}, 0
    log = StepLog(run, rates)
    log.started([], 0, 1.0)
    for length in lengths:
        log.progress(dispatch(step, step + length))
        step += length
    log.closed()
    logged = run.read_steps()
    assert [one.step for one in logged] == list(range(4, 4001, 4))
    assert [one.loss for one in logged] == [float(one.step) for one in logged]
    assert [one.gradient_norm for one in logged] == [one.step / 10 for one in logged]
    assert [one.learning_rate for one in logged] == [0.1 / one.step for one in logged]


def test_a_resumed_run_logs_each_step_once(tmp_path):
    run = RunDirectory(tmp_path)
    for done, end, value in ((0, 17, 60.0), (10, 30, 70.0)):  # killed after step 17, resumed from step 10
        log = StepLog(run, RATES)
        log.started([record(1)], done, 1.0)
        log.progress(dispatch(done, end, accuracies=[value] * (end - done)))
        log.closed()
    assert [(one.step, one.accuracy) for one in run.read_steps()] == [
        (step, 60.0 if step <= 10 else 70.0) for step in range(1, 31)
    ]


def test_steps_before_a_checkpoint_survive_a_kill(tmp_path):
    run = RunDirectory(tmp_path)
    log = StepLog(run, RATES)
    log.progress(dispatch(0, 10))
    log.saving()
    log.progress(dispatch(10, 17))  # killed here, and resumed from the checkpoint
    log = StepLog(run, RATES)
    log.started([], 10, 1.0)
    log.progress(dispatch(10, 30))
    log.closed()
    assert [one.step for one in run.read_steps()] == list(range(1, 31))


def test_a_torn_line_does_not_hide_later_steps(tmp_path):
    run = RunDirectory(tmp_path)
    log = StepLog(run, RATES)
    log.progress(dispatch(0, 10))
    log.closed()
    with run.steps_file.open("a") as file:
        file.write('{"step": 11, "lo')
    log = StepLog(run, RATES)
    log.started([], 10, 1.0)
    log.progress(dispatch(10, 30))
    log.closed()
    assert [one.step for one in run.read_steps()] == list(range(1, 31))


def test_a_full_disk_costs_the_log_of_steps_and_one_warning(tmp_path, capsys):
    run = RunDirectory(tmp_path / "gone")
    log = StepLog(run, RATES)
    for step in range(3):
        log.progress(dispatch(step, step + 1))
        log.epoch(record(1), record(1))
    log.closed()
    assert capsys.readouterr().err.count("warning: steps.jsonl is no longer written") == 1
