"""The growth of time and memory with the batch size and with the depth."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mixer_jax.benchmarks.rounds import measure, spread
from mixer_jax.benchmarks.steps import Ours
from mixer_jax.training import Trainer

FACTORS = (1, 2, 4, 8, 16)


def grid(trainer: Trainer) -> dict[str, dict[int, Trainer]]:
    """Return trainers with 1 to 16 times a small batch size, and trainers with 1 to 16 times a small depth.

    The small value is a quarter of the trainer's own batch size or number of blocks, rounded down, but at least 1.

    Returns:
      The trainers by value, for "batch_size" and for "num_blocks".

    Raises:
      UserError: if one of the configs is invalid or does not fit the devices.
    """
    own = {"batch_size": trainer.config.batch_size, "num_blocks": trainer.model.num_blocks}

    def changed(name: str, value: int) -> Trainer:
        config = trainer.config.copy_and_resolve_references()
        (config if name == "batch_size" else config.model)[name] = value
        return Trainer(config, trainer.dataset)

    values = {name: [max(n // 4, 1) * factor for factor in FACTORS] for name, n in own.items()}
    return {name: {value: changed(name, value) for value in values[name]} for name in own}


def scaling(trainers: Mapping[int, Trainer], rounds: int, at_least: float) -> list[dict[str, Any]]:
    """Measure the training steps of several trainers alternately.

    Args:
      trainers: the trainers by the value of the varied field.
      rounds, at_least: as in `rounds.measure`.

    Returns:
      A row per trainer: the `value`; the `milliseconds` of a step (median, minimum and maximum); the `bytes` of the
      training program; and `time_of_line` and `bytes_of_line`: the median time and the bytes, each divided by what a
      straight line fitted to all trainers predicts. `bytes_of_line` is absent if the bytes are not known.
    """
    ours = {value: Ours(trainer) for value, trainer in trainers.items()}
    seconds = measure({value: each.step() for value, each in ours.items()}, rounds, at_least)
    rows = [
        {"value": value, "milliseconds": spread([1e3 * s for s in seconds[value]]), "bytes": each.memory()}
        for value, each in ours.items()
    ]
    times, sizes = [row["milliseconds"]["median"] for row in rows], [row["bytes"] for row in rows]
    for name, measured in (("time_of_line", times), ("bytes_of_line", sizes)):
        if None not in measured:
            for row, relative in zip(rows, _of_line(list(ours), measured), strict=True):
                row[name] = relative
    return rows


def _of_line(x: Iterable[float], y: list[float]) -> list[float]:
    """Return each y relative to the line that minimises the squared relative errors."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    design = np.stack([np.ones_like(x), x], axis=1)
    line = np.linalg.lstsq(design / y[:, None], np.ones_like(y), rcond=None)[0]
    return list(y / (design @ line))
