"""A machine that walks a torch pickle's opcodes and builds plain records: it can neither call nor import anything.

`pickle.load` runs whatever a file names. Here names stay names: of all that a pickle may mention, only the handful by
which torch describes tensors means anything, and those become `Spec`. Everything else is kept as inert `Object`.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from sowa.errors import ArtifactError

__all__ = ["Global", "Machine", "Object", "Spec", "Storage"]

OPCODES = 1_000_000
"""Steps after which a pickle is refused; the largest published CLIP needs thirty thousand."""

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class Global(NamedTuple):
    """A name the pickle mentions. It is never looked up."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Object:
    """Something the pickle would have built by a call; what was put into it, by any route, is kept as plain data."""

    items: dict[str, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)
    state: Any = None


@dataclass(frozen=True, slots=True)
class Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor as described: a window on a storage, counted in elements of `dtype`."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Machine:
    """Walks a pickle's opcodes over a stack of plain data. Calls are recorded, never made."""

    def __init__(self, pickle: bytes):
        self.pickle = pickle
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value the pickle describes."""
        for step, (opcode, argument, _) in enumerate(pickletools.genops(self.pickle)):
            if step > OPCODES:
                raise ArtifactError(f"its pickle takes more than {OPCODES} steps")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in PUSHES:
                self.stack.append(argument)
            elif opcode.name in CONSTANTS:
                self.stack.append(CONSTANTS[opcode.name])
            elif opcode.name in STEPS:
                STEPS[opcode.name](self, argument)
            else:
                raise ArtifactError(f"its pickle uses {opcode.name}, which torch does not write")
        raise ArtifactError("its pickle has no end")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def popped(self, count: int) -> list[Any]:
        values = self.stack[len(self.stack) - count :]
        if len(values) != count:
            raise ArtifactError("its pickle takes from an empty stack")
        del self.stack[len(self.stack) - count :]
        return values

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def put_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Object) else target
        if not isinstance(items, dict):
            raise ArtifactError("its pickle puts named items into something without names")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Only these can name a tensor; as text they hash with the process's own salt.
            if isinstance(key, str | int):
                items[str(key)] = value

    def put_elements(self, values: list[Any]) -> None:
        target = self.stack[-1]
        elements = target.elements if isinstance(target, Object) else target
        if not isinstance(elements, list):
            raise ArtifactError("its pickle appends to something that is no list")
        elements.extend(values)

    def call(self, count: int) -> None:
        """REDUCE, NEWOBJ and their like: the last `count` values are a callable and its arguments."""
        function, arguments = self.popped(count)[:2]
        described = DESCRIPTIONS.get(function) if isinstance(function, Global) else None
        self.push(described(arguments) if described else Object())

    def build(self) -> None:
        (state,) = self.popped(1)
        if isinstance(self.stack[-1], Object):
            self.stack[-1].state = state

    def persistent(self) -> None:
        """torch's only persistent ids: ("storage", type, key, device, number of elements)."""
        (identity,) = self.popped(1)
        kind, storage_type, key = identity[:3]
        if kind != "storage" or not isinstance(storage_type, Global) or not isinstance(key, str):
            raise ArtifactError("its pickle refers to something outside that is no storage")
        if storage_type.name not in DTYPES:
            self.push(Object())  # a type of number this library has no use for
        else:
            self.push(Storage(key, DTYPES[storage_type.name]))


def _described_tensor(arguments: Any) -> "Spec | Object":
    """(storage, offset, shape, stride, requires_grad, hooks, dtype of an untyped storage...)."""
    storage, offset, shape, stride = arguments[:4]
    dtype = storage.dtype if isinstance(storage, Storage) else None
    if len(arguments) > 6 and isinstance(arguments[6], Global):
        dtype = TORCH_DTYPES.get(arguments[6].name)
    if dtype is None or len(shape) != len(stride) or len(shape) > 16:
        return Object()
    if not all(type(number) is int for number in (offset, *shape, *stride)):
        raise ArtifactError("the shape of a tensor is no row of whole numbers")
    return Spec(storage, dtype, offset, tuple(shape), tuple(stride))


def _first(arguments: Any) -> Any:
    """What a wrapper is put around: a parameter is its tensor, a typed list its values."""
    return arguments[0] if arguments else Object()


def _second_call(arguments: Any) -> Any:
    """`_rebuild_from_type_v2(function, type, arguments, state)`: how subclasses of Tensor are described."""
    described = DESCRIPTIONS.get(arguments[0]) if isinstance(arguments[0], Global) else None
    return described(arguments[2]) if described else Object()


DESCRIPTIONS: dict[Global, Callable[[Any], Any]] = {
    Global("torch._utils", "_rebuild_tensor"): _described_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _described_tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _described_tensor,
    Global("torch._utils", "_rebuild_parameter"): _first,
    Global("torch._utils", "_rebuild_parameter_with_state"): _first,
    Global("torch._tensor", "_rebuild_from_type_v2"): _second_call,
    **{
        Global("torch.jit._pickle", name): _first
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
    },
}
TORCH_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}

PUSHES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
STEPS: dict[str, Callable[[Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.popped(1),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(Object()),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.popped(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.popped(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.popped(3))),
    "DICT": lambda machine, _: (pairs := machine.since_mark(), machine.push({}), machine.put_items(pairs)),
    "APPEND": lambda machine, _: machine.put_elements(machine.popped(1)),
    "APPENDS": lambda machine, _: machine.put_elements(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.put_elements(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.put_items(machine.popped(2)),
    "SETITEMS": lambda machine, _: machine.put_items(machine.since_mark()),
    "PUT": lambda machine, index: machine.remember(index),
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "GET": lambda machine, index: machine.push(machine.memo[index]),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": lambda machine, names: machine.push(Global(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(Global(*machine.popped(2))),
    "REDUCE": lambda machine, _: machine.call(2),
    "NEWOBJ": lambda machine, _: machine.call(2),
    "NEWOBJ_EX": lambda machine, _: machine.call(3),
    "INST": lambda machine, _: (machine.since_mark(), machine.push(Object())),
    "OBJ": lambda machine, _: (machine.since_mark(), machine.push(Object())),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent(),
}
