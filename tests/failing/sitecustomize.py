"""Python starts with this where its folder is on PYTHONPATH: files below FAILING_UNDER then fail at random."""

import os
import random
import shutil

UNDER = os.environ.get("FAILING_UNDER")
RATE = 0.03


def failing(module, name):
    original = getattr(module, name)

    def maybe(path, *arguments, **keywords):
        where = f"/proc/self/fd/{path}" if isinstance(path, int) else path
        if os.path.realpath(where).startswith(UNDER) and random.random() < RATE:
            raise OSError(5, f"Input/output error of {name}")
        return original(path, *arguments, **keywords)

    setattr(module, name, maybe)


if UNDER:
    for owner, names in ((os, ("fsync", "rename", "replace", "unlink", "truncate")), (shutil, ("rmtree",))):
        for each in names:
            failing(owner, each)
