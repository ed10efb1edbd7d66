"""What several processes agree on, seen from each of them, without starting any."""

import jax
import numpy as np
import pytest

from mixer_jax.errors import UserError
from mixer_jax.training import Trainer, processes
from mixer_jax.training.processes import Agreement, check_same
from mixer_jax.training.seeds import SeedGroup, SideBySide
from support import make_config, make_dataset


@pytest.fixture
def one_of_two(monkeypatch):
    """Returns a function that makes an agreement of a process, 0 or 1, of two."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def of(process):
        monkeypatch.setattr(jax, "process_index", lambda: process)
        return Agreement()

    return of


def test_a_single_process_does_what_it_wants_at_once():
    agreement = Agreement()
    assert agreement.settle(15, True, 7) == (15, True, 7)
    assert agreement.message is None
    assert agreement.receive({"loss": 1}) == {"loss": 1}


def test_what_all_do_is_what_the_metrics_brought(one_of_two):
    first = one_of_two(0)
    assert first.settle(0, True, 9) == (0, False, 9)  # nothing received yet
    assert first.message.tolist() == [0, 1, 9]
    second = one_of_two(1)
    assert second.settle(15, True, 3) == (0, False, 3)
    assert second.message.tolist() == [15, 0, 0]  # the time and the length are the first process's
    received = np.maximum(first.message, second.message)
    for process, agreement in enumerate((first, second)):
        assert agreement.receive({"loss": 1, "message": received}) == {"loss": 1}
        one_of_two(process)
        assert agreement.settle(0, False, 5 + process) == (15, True, 9)
        # The checkpoint is due once, though no other message comes before the next dispatch.
        assert agreement.settle(0, False, 5 + process) == (15, False, 9)


def test_each_seed_settles_by_the_messages_of_its_own_dispatches(one_of_two):
    first, second = one_of_two(1), one_of_two(1)
    first.receive({"message": np.array([0, 1, 4])})
    assert second.settle(0, False, 1) == (0, False, 1)  # nothing received yet
    second.receive({"message": np.array([15, 0, 6])})
    assert first.settle(0, False, 1) == (0, True, 4)
    assert second.settle(0, False, 1) == (15, False, 6)


@pytest.mark.parametrize("side_by_side", [False, True], ids=["in turn", "side by side"])
def test_the_message_travels_per_seed_and_the_largest_arrives(side_by_side):
    trainer = Trainer(make_config(batch_size=16, num_seeds=2), make_dataset(), jax.devices()[:2])
    group = SeedGroup(trainer, (0, 1))
    if side_by_side:
        group._run_together = SideBySide(trainer, 2).run
    sent = np.array([[[0, 1, 9], [15, 0, 0]], [[1, 0, 3], [0, 1, 7]]], np.int32)  # (seeds, devices, 3)

    def function(i):
        mine = group.trainers[i]
        chunk = {**mine._pipeline.chunk(0, 1), "message": sent[i]}  # as if each device were a process's
        resident = mine._resident(trainer.dataset.train, mine._pipeline)
        return mine.programs.train(mine.init(), resident, chunk, np.int32(1))[1]["message"]

    received = group.run([lambda i=i: function(i) for i in range(2)])
    np.testing.assert_array_equal(received, sent.max(axis=1))


def test_what_differs_is_named_and_where(one_of_two, monkeypatch):
    one_of_two(0)
    mine = {"config": "a", "data": "b"}
    monkeypatch.setattr(
        processes.multihost_utils, "process_allgather", lambda x: np.stack([x, x if same else np.flip(x, axis=1)])
    )
    same = True
    check_same(lambda: mine)
    same = False
    with pytest.raises(UserError, match="process 1 differs from process 0 in config: start all of them"):
        check_same(lambda: mine)
