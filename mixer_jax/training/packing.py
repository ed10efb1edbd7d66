"""Biases and norm scales packed into one vector, because each array, however small, costs a kernel launch.

Parameters are packed only inside the compiled steps. The inputs and outputs of the steps, and so checkpoints, hold
every array separately.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

VECTORS = "vectors"


class Packing:
    """Packs trees with the structure of a model's parameters, and the optimiser's state, which contains such trees.

    Packing does not change the steps of an optimiser for which `optimizer.is_entrywise` is true.
    """

    def __init__(self, params: Any):
        """Record the parameters, or their shapes: nested dicts, whose one-dimensional arrays will be packed."""
        self._names = params.keys()
        self._shapes = {path: x.shape for path, x in flatten_dict(params).items()}
        self._vectors = [path for path, shape in self._shapes.items() if len(shape) == 1]
        self._packed_names = {path[0] for path, shape in self._shapes.items() if len(shape) > 1} | {VECTORS}

    def pack(self, tree: Any) -> Any:
        """Pack every tree of parameters inside `tree`, which may be an optimiser's state or a `TrainState`."""
        return self._map(self._packed, tree, self._names)

    def unpack(self, tree: Any) -> Any:
        """Undo `pack`."""
        return self._map(self._unpacked, tree, self._packed_names)

    @staticmethod
    def _map(function, tree, names):
        def is_params(x: Any) -> bool:
            return isinstance(x, dict) and x.keys() == names

        return jax.tree.map(lambda x: function(x) if is_params(x) else x, tree, is_leaf=is_params)

    def _packed(self, params: Any) -> Any:
        flat = flatten_dict(params)
        vectors = jnp.concatenate([flat.pop(path) for path in self._vectors])
        return unflatten_dict(flat) | {VECTORS: vectors}

    def _unpacked(self, packed: Any) -> Any:
        flat = flatten_dict(packed)
        ends = np.cumsum([self._shapes[path][0] for path in self._vectors])
        flat |= zip(self._vectors, jnp.split(flat.pop((VECTORS,)), ends[:-1]), strict=True)
        return unflatten_dict({path: flat[path] for path in self._shapes})
