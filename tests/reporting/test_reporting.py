"""The console on a terminal and in a pipe, the curves, and TensorBoard."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mixer_jax.records import Epoch
from mixer_jax.reporting import ConsoleProgress, TensorBoard, plot_curves, stack_curves
from mixer_jax.reporting import progress as progress_module


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(epoch, val_accuracy=50.0):
    return Epoch(
        epoch=epoch, step=10 * epoch, train_loss=2 / epoch, train_accuracy=40.0, learning_rate=1e-3,
        images_per_second=160.0, seconds=1.0, val_loss=1.5 / epoch, val_accuracy=val_accuracy,
    )  # fmt: skip


def follow(file, history=()):
    console = ConsoleProgress(num_epochs=3, total_steps=30, batch_size=16, file=file)
    console.started(list(history), step=history[-1].step if history else 0, compile_seconds=1.25)
    best = record(1, 60.0)
    for epoch in range(len(history) + 1, 4):
        console.progress(10 * epoch - 5, loss=1.2345, accuracy=41.5, images_per_second=1234.5)
        console.epoch(best if epoch == 1 else record(epoch), best)
    console.closed()
    return file.getvalue()


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


def test_curves_are_stacked_for_a_narrow_screen(tmp_path):
    plot_curves([[record(1), record(2)]], tmp_path / "curves.png", "title")
    file = tmp_path / "curves.png"
    wide, narrow = (np.asarray(Image.open(png)) for png in (file, io.BytesIO(stack_curves(file))))
    height, width = narrow.shape[0] // 3, narrow.shape[1]
    assert narrow.shape[0] % 3 == 0
    assert wide.shape[1] == 3 * width
    for i in range(3):
        panel = narrow[i * height : (i + 1) * height]
        np.testing.assert_array_equal(panel, wide[-height:, i * width : (i + 1) * width])
        for edge in (panel[0], panel[-1], panel[:, 0], panel[:, -1]):  # nothing is cut
            assert (edge == 255).all()
    assert (wide[:-height] < 128).any()  # the title


@pytest.mark.parametrize("ended", [1, 2])  # the epoch that the resumed run's checkpoint is of
def test_tensorboard_shows_of_a_resumed_run_what_counts(tmp_path, ended):
    def write(done, accuracy):
        board = TensorBoard(tmp_path / "scalars")
        board.started([record(epoch) for epoch in range(1, done + 1)], step=10 * done, compile_seconds=1.0)
        for epoch in range(done + 1, 4):
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
