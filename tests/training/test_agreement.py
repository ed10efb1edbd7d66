"""What several processes agree on, seen from each of them, without starting any."""

import jax
import numpy as np
import pytest

from mixer_jax.errors import UserError
from mixer_jax.training import processes
from mixer_jax.training.processes import Agreement, check_same


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
    assert agreement.said is None
    assert agreement.hear({"loss": 1}) == {"loss": 1}


def test_what_all_do_is_what_the_metrics_brought(one_of_two):
    first = one_of_two(0)
    assert first.settle(0, True, 9) == (0, False, 9)  # nothing heard yet
    assert first.said.tolist() == [0, 1, 9]
    second = one_of_two(1)
    assert second.settle(15, True, 3) == (0, False, 3)
    assert second.said.tolist() == [15, 0, 0]  # the pace and the time are the first process's
    heard = np.maximum(first.said, second.said)
    for process, agreement in enumerate((first, second)):
        assert agreement.hear({"loss": 1, "heard": heard}) == {"loss": 1}
        one_of_two(process)
        assert agreement.settle(0, False, 5 + process) == (15, True, 9)


def test_of_several_seeds_all_bring_the_same(one_of_two):
    agreement = one_of_two(1)
    agreement.hear({"heard": np.array([[0, 0, 4], [0, 0, 4]])})
    assert agreement.settle(0, False, 1) == (0, False, 4)


def test_what_differs_is_named_and_where(one_of_two, monkeypatch):
    one_of_two(0)
    mine = {"config": "a", "data": "b"}
    monkeypatch.setattr(
        processes.multihost_utils, "process_allgather", lambda x: np.stack([x, x if same else np.flip(x, axis=1)])
    )
    same = True
    check_same(lambda: mine)
    same = False
    with pytest.raises(UserError, match="process 1 has another config than process 0: start all of them"):
        check_same(lambda: mine)
