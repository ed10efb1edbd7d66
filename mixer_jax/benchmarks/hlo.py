"""Parsing the text of compiled programs: XLA's estimate of cycles, and operations that the estimate omits."""

import collections
import dataclasses
import functools
import math
import re
from typing import Any

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
OPERATION = re.compile(r'op_name="([^"]*)"')
WHILE = re.compile(r" while\(.*\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(?\S.*?) ([a-z][\w\-]*)\((.*?)\)(?:,|$)")
ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")
BOUND = re.compile(r" s32\[\]\S* constant\((\d+)\)")
CALLED = re.compile(r"(?:to_apply|branch_computations|true_computation|false_computation)=\{?((?:%?[\w.\-]+(?:, )?)+)")
GATHER = re.compile(r" gather\(.*slice_sizes=\{([\d,]*)\}")
NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all"}
KINDS = 8  # kinds of instruction to list, those with the most cycles
KIND_PARTS = 3  # parts of an operation's name to keep: enough to identify it, few enough to group similar operations


@dataclasses.dataclass
class _Computation:
    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    loops: list[tuple[str, str, int | None]] = dataclasses.field(default_factory=list)  # condition, body, trips
    lines: list[str] = dataclasses.field(default_factory=list)
    bounds: list[int] = dataclasses.field(default_factory=list)  # integer constants, which can be a loop's bound
    called: list[str] = dataclasses.field(default_factory=list)

    @property
    def traffic(self) -> dict[str, int]:
        """The number of `kernels` among the instructions, and `bytes_moved`, the size of their operands and results."""
        sizes, kernels, moved = {}, 0, 0
        for line in self.lines:
            if not (found := INSTRUCTION.match(line)):
                continue
            name, shape, opcode, operands = found.groups()
            sizes[name] = sum(map(_bytes, ARRAY.finditer(shape)))
            if opcode not in NAMES:
                kernels += 1
                moved += sizes[name] + sum(sizes.get(operand, 0) for operand in re.findall(r"%([\w.\-]+)", operands))
        return {"kernels": kernels, "bytes_moved": moved}


def read(text: str) -> dict[str, Any]:
    """Analyse the text of a compiled program that loops over its steps.

    Among the loops of unknown length in the entry computation, the one that takes the most cycles is taken to be the
    loop over the steps. Without such a loop, the entire program counts as the step.

    Args:
      text: what `jax.stages.Compiled.as_text` returns.

    Returns:
      A dictionary of JSON values:

      dispatch_cycles: XLA's estimate for a dispatch without the loop over its steps; 0 if XLA makes none, as for a GPU.
      step_cycles: XLA's estimate for one step, the body of that loop; inner loops count as often as they run.
      kinds: a step's cycles by kind of instruction, for the KINDS largest, in descending order.
      kernels: the number of instructions in a step that compute something, each of them a kernel launch on a GPU.
      bytes_moved: bytes of the operands and results of these instructions.
      gathers, single_gathers: numbers of gathers in the program, and of gathers of single elements.
      scatters, sorts: numbers of these instructions in the program.
      loops: the number of inner loops in a step.
      open_loops: the number of inner loops whose length depends on data; the estimate counts their body once.
    """
    computations, entry = _computations(text)
    trips = {
        body: known or next(iter(computations[condition].bounds), None)
        for computation in computations.values()
        for condition, body, known in computation.loops
    }

    @functools.cache
    def total(name: str, field: str) -> collections.Counter:
        """Return a counter of a computation and of all that it calls; loops count as often as they run."""
        counted = collections.Counter(getattr(computations[name], field))
        inner = [(body, trips[body] or 1) for _, body, _ in computations[name].loops]
        for below, times in inner + [(called, 1) for called in computations[name].called]:
            counted.update({key: times * n for key, n in total(below, field).items()})
        return counted

    def cycles(name: str) -> int:
        return total(name, "kinds").total()

    def loops(name: str) -> list[str]:
        """Return the bodies of the loops in a computation, nested ones included."""
        own = [body for _, body, _ in computations[name].loops]
        return own + [inner for below in [*own, *computations[name].called] for inner in loops(below)]

    outer = [body for _, body, _ in computations[entry].loops if trips[body] is None]
    step = max(outer, key=lambda body: (cycles(body), len(computations[body].lines)), default=None)
    if step is None or (cycles(entry) and not cycles(step)):
        step = entry  # XLA has inlined a loop of one step
    inside = [body for body in loops(step) if body not in outer]
    slices = [found[1] for found in GATHER.finditer(text)]
    return {
        "dispatch_cycles": cycles(entry) - cycles(step),
        "step_cycles": cycles(step),
        "kinds": dict(total(step, "kinds").most_common(KINDS)),
        **{"kernels": 0, "bytes_moved": 0} | total(step, "traffic"),
        "gathers": len(slices),
        "single_gathers": sum(all(size == "1" for size in sizes.split(",")) for sizes in slices),
        "scatters": len(re.findall(r" scatter\(", text)),
        "sorts": len(re.findall(r" sort\(", text)),
        "loops": len(inside),
        "open_loops": sum(trips[body] is None for body in inside),
    }


def _computations(text: str) -> tuple[dict[str, _Computation], str]:
    """Return the computations of a program by name, and the name of its entry."""
    computations, current, entry = {}, _Computation(), ""
    for line in text.splitlines():
        if found := COMPUTATION.match(line):
            current = computations[found[1]] = _Computation()
            entry = found[1] if line.startswith("ENTRY") else entry
            continue
        current.lines.append(line)
        if found := CYCLES.search(line):
            name = OPERATION.search(line)
            current.kinds[_kind(name[1] if name else "unnamed")] += int(found[1])
        if found := WHILE.search(line):
            known = TRIPS.search(line)
            current.loops.append((found[1], found[2], int(known[1]) if known else None))
        elif found := BOUND.search(line):
            current.bounds.append(int(found[1]))
        elif " call(" in line or " conditional(" in line:
            current.called += [name.strip("% ") for found in CALLED.finditer(line) for name in found[1].split(",")]
    return computations, entry


def _bytes(array: re.Match) -> int:
    kind, bits, sides = array.groups()
    return math.prod(int(side) for side in sides.split(",") if side) * (1 if kind == "pred" else max(int(bits) // 8, 1))


def _kind(operation: str) -> str:
    """Return the kind of an operation: the last parts of its name, with "*" for numbers, as in MixerBlock_*.

    For operations of the backward pass, it starts with "backward ".
    """
    parts = [part for part in re.sub(r"_\d+\b", "_*", operation).split("/") if part not in ("while", "body", "cond")]
    backward = "backward " if any(part.startswith("transpose(") for part in parts) else ""
    return backward + "/".join(part for part in parts[-KIND_PARTS:] if not part.startswith(("jit(", "branch_")))
