"""What a train step costs: FLOPs, bytes on a device, and collectives, as XLA counts them."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.experiment import Experiment

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id"}
"""Operations that move nothing."""
BY_ELEMENT = {
    *("add", "subtract", "multiply", "divide", "negate", "abs", "maximum", "minimum", "power", "sqrt", "rsqrt"),
    *("exponential", "exponential-minus-one", "log", "log-plus-one", "logistic", "tanh", "convert"),
    *("compare", "select", "and", "or", "not"),
}
"""Operations that compute an element of the result from the same element of each operand."""
REORDERED = {"bitcast", "copy", "reshape"}
"""Operations whose result has the elements of the operand, perhaps in another order."""
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
    r"(?:body|to_apply|calls|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.-]+)"
)
_CHAIN = re.compile(r'chain_id="(\d+)"')
"""The number of an asynchronous message of a TPU."""
_ROUNDS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


def compute_dtype(experiment: Experiment) -> Any:
    """The dtype in which the network computes: its field `dtype`, or float32 without one."""
    return getattr(experiment.network, "dtype", np.float32)


def flops(lowered: Any) -> float | None:
    """Floating-point operations of a lowered function; None on a device whose compiler does not count them."""
    cost = lowered.cost_analysis()
    return None if cost is None else float((cost[0] if isinstance(cost, list) else cost)["flops"])


def tree_bytes(tree: Any) -> int:
    """The bytes that all arrays of a tree occupy on one device; the leaves are arrays, or shapes with shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


class Instruction(NamedTuple):
    """A line of the text of a compiled program."""

    name: str
    result: str
    """The type of its result, such as "bf16[8,32]{1,0}"."""
    kind: str
    rest: str
    """Its operands and attributes."""

    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.-]+)", self.rest.split("), ")[0])

    def called(self) -> list[str]:
        """The names of the computations that it executes."""
        return re.findall(r"[\w.-]+", " ".join(_CALLED.findall(self.rest)))


CONTROL = ("while", "call", "conditional")
"""Operations that execute other computations."""


def computations(program: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations in the text of a compiled program, by name, and the name of the one that starts it."""
    found: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in program.splitlines():
        if (head := _COMPUTATION.match(line)) and " = " not in line.split("{")[0].split("->")[0]:
            current = head[2]
            entry = current if head[1] else entry
            found[current] = []
        elif each := _INSTRUCTION.match(line):
            found.setdefault(current, []).append(Instruction(*each.groups()))
    return found, entry


def executed(program: str, entered: Sequence[str] = CONTROL) -> list[tuple[Instruction, int]]:
    """The instructions that the text of a compiled program executes, and how often.

    The computations of the operations of the kinds `entered` are included: by default loops, calls and branches. A loop
    whose number of rounds the compiler does not know counts once, as does each branch.
    """
    known, entry = computations(program)

    def walk(name: str, times: int) -> Iterator[tuple[Instruction, int]]:
        for each in known.get(name, []):
            yield each, times
            if each.kind in entered:
                rounds = int(found[1]) if (found := _ROUNDS.search(each.rest)) else 1
                for called in each.called():
                    yield from walk(called, times * rounds)

    return list(walk(entry, 1))


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """The collectives of a compiled program, given as text: kind -> (number, bytes of their results on a device).

    An asynchronous message of a TPU appears in each fusion that starts, advances or finishes it, and counts once.
    """
    found: dict[str, tuple[int, int]] = {}
    first: dict[str, str] = {}
    for each, times in executed(program, (*CONTROL, "fusion", "async-start")):
        kind, chain = each.kind.removesuffix("-start"), _CHAIN.search(each.rest)
        if kind in COLLECTIVES and (chain is None or first.setdefault(chain[1], each.name) == each.name):
            count, size = found.get(kind, (0, 0))
            found[kind] = (count + times, size + times * _bytes(_destination(each), everywhere=True))
    return found


def traffic(program: str) -> float:
    """The bytes that the kernels of a compiled program, given as text, read from and write to the device's memory.

    Each operand and each result counts once; arrays in the chip's own memory, S(1) in the text, do not. Of an array
    from which a slice is copied ahead of its use, or of which a fusion uses slices only, the slices count, also where
    the fusion computes with each element of the array before it takes them.
    """
    instructions, (known, _) = executed(program), computations(program)
    types = {each.name: each.result for each, _ in instructions}
    total = 0
    for each, times in instructions:
        if each.kind in FREE or each.kind.endswith("-done") or each.kind in CONTROL:
            continue
        if each.kind.endswith("-start"):
            source, filled = _source(each), _destination(each)
            moved = _bytes(filled) + (0 if "S(1)" in source else _bytes(filled, everywhere=True))
        else:
            whole = [_bytes(types.get(name, "")) for name in each.operands()]
            parts = _sliced(known[each.called()[0]]) if each.kind == "fusion" and each.called() else {}
            moved = _bytes(each.result) + sum(min(size, parts.get(i, size)) for i, size in enumerate(whole))
        total += moved * times
    return float(total)


def _sliced(body: list[Instruction]) -> dict[int, int]:
    """Number of a parameter -> bytes that a fusion reads of it, for parameters of which it uses slices only."""
    users: dict[str, list[Instruction]] = {}
    for each in body:
        for name in each.operands():
            users.setdefault(name, []).append(each)
    found = {}
    for each in body:
        if each.kind == "parameter" and (slices := _slices(each, users)) is not None:
            share = sum(slices.values()) / max(1, _elements(each.result))
            found[int(each.rest.split(")")[0])] = int(share * _bytes(each.result))
    return found


def _slices(parameter: Instruction, users: dict[str, list[Instruction]]) -> dict[tuple[str, str], int] | None:
    """Elements of each slice that is used, also after operations by element; None if something uses all elements.

    The keys are the name of an array with the elements of the parameter, in an order of its own, and the bounds.
    """
    found: dict[tuple[str, str], int] = {}
    reached = [(parameter, parameter.name)]
    for whole, order in reached:
        if whole.name not in users:
            return None  # it is a result
        for user in users[whole.name]:
            if user.kind == "slice" or (user.kind == "dynamic-slice" and user.operands()[0] == whole.name):
                bounds = re.search(r"slice=\{[^}]*\}", user.rest)
                found[order, bounds[0] if bounds else user.name] = _elements(user.result)
            elif user.kind in BY_ELEMENT | REORDERED and _elements(user.result) == _elements(parameter.result):
                step = (user, user.name if user.kind in REORDERED else order)
                reached.extend([] if step in reached else [step])
            else:
                return None
    return found


def _parts(result: str) -> list[str]:
    """The elements of a tuple type; a single element for another type."""
    if not result.startswith("("):
        return [result]
    elements, depth = [""], 0
    for letter in result[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += letter
    return [element.strip() for element in elements]


def _source(each: Instruction) -> str:
    """The type of what an instruction that starts a copy reads."""
    elements = _parts(each.result)
    return elements[1] if each.kind == "copy-start" and len(elements) > 1 else elements[0]


def _destination(each: Instruction) -> str:
    """The type of the result of an instruction; of one that starts a copy, the part that is filled meanwhile."""
    elements = _parts(each.result)
    if not each.kind.endswith("-start") or len(elements) < 2:
        return each.result
    if each.kind == "all-reduce-start" and not elements[0].startswith("("):
        return each.result  # the results alone; compilers of GPUs put a tuple of the operands before them
    return elements[0] if each.kind == "copy-start" else elements[1]


def _bytes(result: str, everywhere: bool = False) -> int:
    """The bytes of the arrays of a type, without those in the chip's own memory, or `everywhere`."""
    return sum(
        math.prod(int(size) for size in shape.split(",") if size) * _bits(kind) // 8
        for kind, shape, layout in _ARRAY.findall(result)
        if everywhere or "S(1)" not in layout
    )


def _elements(result: str) -> int:
    """The number of elements of the arrays of a type."""
    return sum(math.prod(int(size) for size in shape.split(",") if size) for _, shape, _ in _ARRAY.findall(result))


def _bits(kind: str) -> int:
    return 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
