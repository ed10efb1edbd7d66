"""How time and memory grow with the batch and with the depth."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.benchmarks.rounds import measure, spread
from mixer_jax.benchmarks.steps import Ours
from mixer_jax.training import Trainer

FACTORS = (1, 2, 4, 8, 16)


def scaling(config: ConfigDict, dataset: data.Dataset, rounds: int, at_least: float) -> dict[str, list[dict[str, Any]]]:
    """Measures the step at 1 to 16 times a small batch, and at 1 to 16 times a small depth.

    The config's own batch size and number of blocks are the fourfold.

    Returns:
      For `batch_size` and `num_blocks` a row each: the `value`, the milliseconds of a step (`median`, `min`, `max`),
      the bytes of the training program, and both as a share of what a straight line through the first and the last
      row, fitted to all, says.
    """
    num_blocks = Trainer(config, dataset).model.num_blocks
    batch_size = config.batch_size

    def batches(factor: int) -> ConfigDict:
        return _changed(config, batch_size=max(batch_size // 4, 1) * factor)

    def depths(factor: int) -> ConfigDict:
        return _changed(config, **{"model.num_blocks": max(num_blocks // 4, 1) * factor})

    return {
        "batch_size": _rows(batches, lambda c: c.batch_size, dataset, rounds, at_least),
        "num_blocks": _rows(depths, lambda c: c.model.num_blocks, dataset, rounds, at_least),
    }


def _changed(config: ConfigDict, **fields: Any) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(fields)
    return changed


def _rows(
    at: Callable[[int], ConfigDict],
    value: Callable[[ConfigDict], int],
    dataset: data.Dataset,
    rounds: int,
    at_least: float,
) -> list[dict[str, Any]]:
    configs = [at(factor) for factor in FACTORS]
    ours = {value(config): Ours(Trainer(config, dataset)) for config in configs}
    seconds = measure({x: each.step() for x, each in ours.items()}, rounds, at_least)
    rows = [
        {"value": x, "milliseconds": spread([1e3 * s for s in seconds[x]]), "bytes": each.memory()}
        for x, each in ours.items()
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
