"""How time and memory grow with the batch and with the depth."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.benchmarks.rounds import measure, spread
from mixer_jax.benchmarks.steps import Ours
from mixer_jax.training import Trainer

FACTORS = (1, 2, 4, 8, 16)


def grid(config: ConfigDict, dataset: data.Dataset) -> dict[str, dict[int, Trainer]]:
    """The trainers of 1 to 16 times a small `batch_size`, and those of 1 to 16 times a small depth, `num_blocks`.

    The config's own batch size and number of blocks are the fourfold.

    Raises:
      UserError: if one of them does not fit itself or the devices.
    """
    own = {"batch_size": config.batch_size, "num_blocks": Trainer(config, dataset).model.num_blocks}
    fields = {"batch_size": "batch_size", "num_blocks": "model.num_blocks"}

    def trainer(name: str, value: int) -> Trainer:
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({fields[name]: value})
        return Trainer(changed, dataset)

    values = {name: [max(n // 4, 1) * factor for factor in FACTORS] for name, n in own.items()}
    return {name: {value: trainer(name, value) for value in values[name]} for name in own}


def scaling(trainers: Mapping[int, Trainer], rounds: int, at_least: float) -> list[dict[str, Any]]:
    """Measures the steps of some trainers in turns, each known by a number.

    Returns:
      A row each: the number as `value`, the `milliseconds` of a step, the `bytes` of the training program, and both as
      a share of what the straight line says that fits all of them best.
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
            for row, share in zip(rows, _of_line(list(ours), measured), strict=True):
                row[name] = share
    return rows


def _of_line(x: Iterable[float], y: list[float]) -> list[float]:
    """Each y as a share of the line that fits all best, relative errors counting."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    design = np.stack([np.ones_like(x), x], axis=1)
    line = np.linalg.lstsq(design / y[:, None], np.ones_like(y), rcond=None)[0]
    return list(y / (design @ line))
