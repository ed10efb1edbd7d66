"""What a study compares: its arms, each a config trained with several seeds, by one protocol or two."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import check, flat, unknown_field
from mixer_jax.errors import UserError

# On what a run's best epoch is chosen: as published on test, whose score is then no longer an honest one; or cleanly.
PROTOCOLS = {"published": "test", "clean": "validation"}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One thing that a study trains.

    Attributes:
      name: of its folder.
      title: in tables.
      changes: fields of the study's config, by their dotted path, that it has other values of.
      num_seeds: how often it is trained.
      protocols: by which; see `PROTOCOLS`.
      published: "last" and "best", accuracies in percent of the last epoch and of the best one, as far as published.
      notes: what is known to be wrong or unclear about what was published.
      in_torch: trained in PyTorch, where it is installed, for a number of PyTorch's from here.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_seeds: int = 5
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    in_torch: bool = False

    def config(self, base: ConfigDict, protocol: str, num_seeds: int | None = None) -> ConfigDict:
        """Returns the checked config of all seeds, `num_seeds` at most, by one of the protocols.

        Raises:
          UserError: if a change is of no field, or makes no config.
        """
        known = dict(flat(base))
        for path in self.changes:
            if path not in known:
                raise unknown_field(path, known)
        config = base.copy_and_resolve_references()
        try:
            config.update_from_flattened_dict(dict(self.changes))
        except TypeError as error:
            raise UserError(f"arm {self.name!r}: {' '.join(str(error).split())}") from error
        config.dataset.val_split = config.dataset.test_split if PROTOCOLS[protocol] == "test" else ""
        config.num_seeds = min(self.num_seeds, num_seeds or self.num_seeds)
        return check(config)
