"""The arms of a study: configs that are trained with several seeds, under one or both of the `PROTOCOLS`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import check, flat, unknown_field
from mixer_jax.errors import UserError, in_one_line, one_of

# The split on which a run's best epoch is chosen. Choosing on test, as published, biases the test score of that epoch.
PROTOCOLS = {"published": "test", "clean": "validation"}
EPOCHS = ("last", "best")  # that accuracies are published of


@dataclasses.dataclass(frozen=True)
class Arm:
    """One of the configurations that a study compares.

    Attributes:
      name: the name of the arm's folder.
      title: the title in tables.
      changes: values of fields, by dotted path, that differ from the study's config.
      num_seeds: the number of seeds to train.
      protocols: keys of `PROTOCOLS`.
      published: accuracies in percent, "last" for the last epoch and "best" for the best epoch, where published.
      notes: known errors and ambiguities in the published numbers.
      in_torch: whether the arm is trained in PyTorch, as a reference measured on the same machine.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_seeds: int = 5
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    in_torch: bool = False

    def __post_init__(self):
        """Raise `UserError` if a name in `protocols` or `published` does not exist."""
        for field, names, valid in (("protocol", self.protocols, PROTOCOLS), ("published", self.published, EPOCHS)):
            for name in names:
                if name not in valid:
                    raise one_of(f"{field} of the arm {self.name!r}", name, valid)

    def config(self, base: ConfigDict, protocol: str, num_seeds: int | None = None) -> ConfigDict:
        """Return the checked config of all seeds of the arm.

        Args:
          base: the study's config.
          protocol: a key of `PROTOCOLS`.
          num_seeds: the maximum number of seeds; None for all.

        Raises:
          UserError: if a change names an unknown field or makes the config invalid.
        """
        known = flat(base)
        for path in self.changes:
            if path not in known:
                raise unknown_field(path, known)
        config = base.copy_and_resolve_references()
        try:
            config.update_from_flattened_dict(dict(self.changes))
        except TypeError as error:
            raise UserError(f"arm {self.name!r}: {in_one_line(error)}") from error
        config.dataset.val_split = config.dataset.test_split if PROTOCOLS[protocol] == "test" else ""
        config.num_seeds = min(self.num_seeds, num_seeds or self.num_seeds)
        return check(config)
