"""PyTorch's `.pt .pth .bin`, zip and legacy: a symbolic machine walks the pickle's opcodes and executes nothing.

It knows dictionaries, lists, numbers, text and the handful of functions that rebuild a tensor; the sight of any other
name ends the reading. Tensors are found, not loaded: their bytes stay in the file.
"""

from __future__ import annotations

import io
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from brolly.card import BITS, TensorInfo
from brolly.checkpoint.bounded import MAX_DEPTH, MAX_TENSORS, exactly, fault, opened, shape_of, shown
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.place import Where

MAX_PICKLE = 8 * 2**20  # bytes; a real one takes about 200 a tensor
MAX_OPCODES = 500_000  # about 40 a tensor
MAX_DIRECTORY = 4 * 2**20  # bytes; a storage takes about 80
MAX_NAMES = 16 * 2**20  # bytes, of all names together
MAX_REPEATED = 2**26  # bytes that a tensor may claim beyond its storage, by a stride of nought
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "UntypedStorage": "U8",
    "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
}  # fmt: skip
PLAIN = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}  # fmt: skip
DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "complex64": "C64", "complex128": "C128", "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip
REBUILDERS = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter", "torch.Size",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that the pickle mentions and that we know."""

    path: str

    @property
    def dtype(self) -> str | None:
        leaf = self.path.rpartition(".")[2]
        return STORAGES.get(leaf) or DTYPES.get(leaf)


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    n_elements: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def survey_torch(path: Where) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Tensors by name, whatever else the file's pickle asks for, and what it says: for telling, never for loading.

    The metadata: "container" (zip, legacy, tar, torchscript, pickle), "globals" (all that it names), "top_level" (its
    keys), "values" (what is plain in it), "object" (its class, where it is no dictionary), "lightning" (a version or
    None), "optimizer" (whether it holds one's state).
    Raises CheckpointError, UnsafeCheckpoint.
    """
    from brolly.checkpoint.survey import survey

    return survey(path)


def read_torch(path: Where, seen: list[str] | None = None) -> dict[str, TensorInfo]:
    """Tensors by name, nested dictionaries joined by dots. Raises CheckpointError, UnsafeCheckpoint.

    With `seen`, names that are no tensor's do not end the reading: they are noted there.
    """
    if seen is not None:
        tensors, metadata = survey_torch(path)
        seen += metadata["globals"]
        return tensors
    with opened(path) as (file, size):
        try:
            if exactly(file, 4, path) == b"PK\x03\x04":
                return _read_zip(file, path, size)
            return _read_legacy(file, path, size)
        except (
            zipfile.BadZipFile,
            struct.error,
            RuntimeError,
            LookupError,
            EOFError,
            ValueError,
            MemoryError,
        ) as error:
            raise CheckpointError(f"{path} is not a whole PyTorch file ({fault(error)}); download it again.") from None


def _read_zip(file: BinaryIO, path: Where, size: int) -> dict[str, TensorInfo]:
    file.seek(0)
    with zipfile.ZipFile(_Sparing(file, path)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise CheckpointError(f"{path} lists a member twice; the file is damaged or made up.")
    pickles = [name for name in members if name.count("/") <= 1 and name.endswith("data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"{path} is a zip archive without a data.pkl; expected a PyTorch checkpoint.")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        return _scripted(path)
    order = members.get(f"{root}byteorder")
    if order and order.file_size <= 16 and _member(file, order, path, size)[1] != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; expected little-endian.")
    if members[pickles[0]].file_size > MAX_PICKLE:
        raise UnsafeCheckpoint(f"{path}: its pickle has {members[pickles[0]].file_size} bytes; at most {MAX_PICKLE}.")
    found = _Machine(_member(file, members[pickles[0]], path, size)[1], path).run()
    starts: dict[str, tuple[int, int]] = {}

    def locate(storage: _Storage) -> tuple[int, int]:
        if storage.key not in starts:
            member = members.get(f"{root}data/{storage.key}")
            if member is None:
                raise CheckpointError(f"{path} lacks the data of storage {shown(storage.key)}; download it again.")
            starts[storage.key] = _member(file, member, path, size, read=False)[0], member.file_size
        return starts[storage.key]

    return _collect(found, locate, path)


def _scripted(path: Where) -> dict[str, TensorInfo]:
    """The tensors of a TorchScript program by their modules' names; the program itself is never looked at."""
    tensors, told = survey_torch(path)
    for name in told["globals"]:
        if not (name.startswith(("__torch__.", "torch.jit._pickle.")) or _is_known(name)):
            raise UnsafeCheckpoint(
                f"{path} is a TorchScript program that asks for {shown(name)}; nothing was executed."
            )
    return tensors


class _Sparing:
    """A file that never gives more at once than a zip directory of honest length."""

    def __init__(self, file: BinaryIO, path: Where) -> None:
        self.seek, self.tell, self.seekable, self._file, self._path = file.seek, file.tell, file.seekable, file, path

    def read(self, n_bytes: int = -1) -> bytes:
        raw = self._file.read(n_bytes if 0 <= n_bytes <= MAX_DIRECTORY else MAX_DIRECTORY + 1)
        if len(raw) > MAX_DIRECTORY:
            raise UnsafeCheckpoint(
                f"{self._path}: its zip directory exceeds {MAX_DIRECTORY:,} bytes, as no real one does."
            )
        return raw


def _member(file: BinaryIO, member: zipfile.ZipInfo, path: Where, size: int, read: bool = True) -> tuple[int, bytes]:
    """Where a stored member's bytes begin, and the bytes. A compressed one is refused: it could be a bomb."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise UnsafeCheckpoint(
            f"{path}: {shown(member.filename)} is compressed; PyTorch stores its members as they are."
        )
    if not 0 <= member.header_offset <= size - 30:
        raise CheckpointError(f"{path}: the zip directory points outside the file.")
    file.seek(member.header_offset)
    local = exactly(file, 30, path)
    if local[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{path}: the zip directory points at no member; the file is damaged.")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    start = member.header_offset + 30 + name_length + extra_length
    if start + member.file_size > size:
        raise CheckpointError(
            f"{path} has {size} bytes, and {shown(member.filename)} ends beyond them: it is incomplete."
        )
    if not read:
        return start, b""
    file.seek(start)
    return start, exactly(file, member.file_size, path)


def _read_legacy(file: BinaryIO, path: Where, size: int) -> dict[str, TensorInfo]:
    """Five pickles (magic, protocol, system, object, storage keys), then each storage's length and bytes."""
    file.seek(0)
    head = io.BytesIO(file.read(MAX_PICKLE))
    if head.getbuffer()[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar from before PyTorch 0.1.10; load and save it with PyTorch.", "")
    if head.getbuffer()[:1] != b"\x80":
        raise CheckpointError(f"{path} is neither a zip archive nor a pickle; expected a PyTorch checkpoint.")
    steps = iter(range(MAX_OPCODES))
    storages: dict[str, _Storage] = {}
    if _Machine(head, path, steps, storages).run() != LEGACY_MAGIC:
        raise CheckpointError(f"{path} is a pickle and no PyTorch checkpoint (its magic number is missing).", "")
    _, _, found, keys = (_Machine(head, path, steps, storages).run() for _ in range(4))
    if not isinstance(keys, list):
        raise CheckpointError(f"{path}: its fifth pickle is no list of storages; the file is damaged.")
    starts: dict[str, tuple[int, int]] = {}
    at = head.tell()
    for key in keys:
        if not isinstance(key, str) or key not in storages or key in starts:
            raise CheckpointError(f"{path}: storage {shown(key)} belongs to no tensor; the file is damaged.")
        file.seek(at)
        count = struct.unpack("<q", exactly(file, 8, path))[0]
        nbytes = count * BITS[storages[key].dtype] // 8
        if count < 0 or at + 8 + nbytes > size:
            raise CheckpointError(f"{path} has {size} bytes, and a storage needs {nbytes} from {at}: it is incomplete.")
        starts[key] = at + 8, nbytes
        at += 8 + nbytes

    def locate(storage: _Storage) -> tuple[int, int]:
        if storage.key not in starts:
            raise CheckpointError(f"{path} lacks the data of storage {shown(storage.key)}; download it again.")
        return starts[storage.key]

    return _collect(found, locate, path)


def _walk(found: Any, path: Where) -> list[tuple[str, _Tensor]]:
    """Every tensor with its dotted name; shared structures are met once, so that nesting cannot explode."""
    if isinstance(found, dict):
        inner = [found[k] for k in WRAPPERS if isinstance(found.get(k), dict)]
        if inner and not any(isinstance(v, _Tensor) for v in found.values()):
            found = inner[0]
    out: list[tuple[str, _Tensor]] = []
    seen: set[int] = set()
    held = 0
    todo: list[tuple[str, Any, int]] = [("", found, 0)]
    while todo:
        name, value, depth = todo.pop()
        if isinstance(value, _Tensor):
            out.append((name or "tensor", value))
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen and depth < MAX_DEPTH:
            seen.add(id(value))
            rows: list[tuple[str, Any, int]] = []
            for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(key, (str, int)) and isinstance(inside, (_Tensor, dict, list, tuple)):
                    rows.append((_joined(name, key), inside, depth + 1))
                    held += sys.getsizeof(rows[-1][0])
                    if held > MAX_NAMES:
                        raise UnsafeCheckpoint(f"{path}: the names in it take more than {MAX_NAMES:,} bytes.")
            todo += reversed(rows)
        if len(out) + len(todo) > MAX_TENSORS:
            raise UnsafeCheckpoint(f"{path} holds more than {MAX_TENSORS} values; no real checkpoint does.")
    return out


def _joined(name: str, key: str | int) -> str:
    if len(key) > 1000 if isinstance(key, str) else abs(key) >= 2**63:
        raise ValueError(f"a key is {shown(key)}")
    if isinstance(key, str):
        key.encode()  # half of a surrogate pair, which a pickle can hold, would break whoever prints it
    return f"{name}.{key}" if name else str(key)


def _collect(found: Any, locate: Callable[[_Storage], tuple[int, int]], path: Where) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for name, tensor in _walk(found, path):
        where = f"{path}: tensor {shown(name)}"
        if name in tensors:
            raise CheckpointError(f"{where} occurs twice; the file is damaged or made up.")
        begin, nbytes = locate(tensor.storage)
        item = BITS[tensor.dtype] // 8
        last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        span = 0 if 0 in tensor.shape else (last + 1) * item
        if tensor.start * item + span > nbytes:
            raise CheckpointError(
                f"{where} reaches beyond its storage of {nbytes} bytes; the file is damaged or made up."
            )
        if prod(tensor.shape) * item > max(nbytes, MAX_REPEATED):
            raise UnsafeCheckpoint(f"{where} is {shown(tensor.shape)} of a storage of {nbytes:,} bytes; not loaded.")
        plain = tuple(prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape)))
        strides = None if tensor.strides == plain or prod(tensor.shape) <= 1 else tensor.strides
        if strides is None:
            span = prod(tensor.shape) * item
        tensors[name] = TensorInfo(name, tensor.dtype, tensor.shape, path, begin + tensor.start * item, span, strides)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; expected a dictionary of them.", "")
    return tensors


def _is_known(path: str) -> bool:
    """Whether a global is one of those that make a tensor."""
    module, _, leaf = path.rpartition(".")
    return path in REBUILDERS or (module in ("torch", "torch.storage") and (leaf in STORAGES or leaf in DTYPES))


MARK = object()


def marked(stack: list[Any]) -> list[Any]:
    """The values above a stack's last mark, taken off with it. Raises ValueError, IndexError."""
    at = len(stack) - 1
    while stack[at] is not MARK:
        at -= 1
        if at < 0:
            raise ValueError("a mark is missing")
    values = stack[at + 1 :]
    del stack[at:]
    return values


class _Machine:
    """A stack, a memo and the opcodes of data; it builds descriptions and calls nothing."""

    def __init__(
        self,
        raw: bytes | io.BytesIO,
        path: Where,
        steps: Iterator[int] | None = None,
        storages: dict[str, _Storage] | None = None,
    ) -> None:
        self.raw, self.path = raw, path
        self.steps = iter(range(MAX_OPCODES)) if steps is None else steps
        self.storages = {} if storages is None else storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The one object that the pickle describes."""
        try:
            for opcode, argument, _ in pickletools.genops(self.raw):
                if next(self.steps, None) is None:
                    raise UnsafeCheckpoint(f"{self.path}: its pickle has more than {MAX_OPCODES:,} steps.")
                self._step(opcode.name, argument)
            return self.stack.pop()
        # A Warning is one under `python -W error`: pickletools warns of odd escapes.
        except (LookupError, ValueError, TypeError, AttributeError, MemoryError, OverflowError, Warning) as error:
            raise CheckpointError(f"{self.path}: the pickle is damaged ({fault(error)}).") from None

    def _step(self, op: str, arg: Any) -> None:
        stack = self.stack
        match op:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                stack.append(MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_SET":
                stack.append([])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(op == "NEWTRUE")
            case "TUPLE":
                stack.append(tuple(marked(stack)))
            case "LIST":
                stack.append(marked(stack))
            case "DICT":
                stack.append(self._pairs(marked(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(op[-1])
                last = tuple(stack[-n:])
                if len(last) < n or any(v is MARK for v in last):
                    raise ValueError("the stack is empty")
                del stack[-n:]
                stack.append(last)
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS" | "ADDITEMS":
                values = marked(stack)
                stack[-1].extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1].update(self._pairs([key, value]))
            case "SETITEMS":
                values = marked(stack)
                stack[-1].update(self._pairs(values))
            case "POP":
                stack.pop()
            case "POPMARK":
                marked(stack)
            case "DUP":
                stack.append(stack[-1])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[int(arg)] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[int(arg)])
            case "GLOBAL":
                stack.append(self._name(arg.replace(" ", ".")))
            case "STACK_GLOBAL":
                leaf, module = stack.pop(), stack.pop()
                if not isinstance(leaf, str) or not isinstance(module, str):
                    raise ValueError("a global has no name")
                stack.append(self._name(f"{module}.{leaf}"))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._rebuild(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of a dictionary (_metadata): nothing that a reader needs
                if not isinstance(stack[-1], dict):
                    raise UnsafeCheckpoint(f"{self.path}: its pickle sets an object's state; only tensors are read.")
            case _ if op in PLAIN:
                stack.append(arg)
            case _:
                raise UnsafeCheckpoint(
                    f"{self.path}: its pickle uses {op} {shown(arg)}, which data does not need; not loaded."
                )

    @staticmethod
    def _pairs(values: list[Any]) -> dict[Any, Any]:
        keys = values[::2]
        if len(values) % 2 or not all(isinstance(k, (str, int, float, bool, bytes, type(None))) for k in keys):
            return {k: v for k, v in zip(keys, values[1::2], strict=True) if isinstance(k, (str, int))}
        return dict(zip(keys, values[1::2], strict=True))

    def _name(self, path: str) -> _Name:
        if not _is_known(path):
            raise UnsafeCheckpoint(
                f"{self.path} asks for {shown(path)}, which is not a tensor; nothing was executed. "
                "Use a safetensors file of the same model."
            )
        return _Name(path)

    def _storage(self, reference: Any) -> _Storage:
        kind, name, key, _, count = reference[:5]
        if kind != "storage" or not isinstance(name, _Name) or name.dtype is None or not isinstance(key, str):
            raise UnsafeCheckpoint(f"{self.path}: its pickle refers to {shown(kind)}; expected a tensor's storage.")
        if len(reference) > 5 and reference[5] is not None:
            raise CheckpointError(f"{self.path}: views of storages (PyTorch before 0.4) are not read; save it again.")
        if type(count) is not int or not 0 <= count < 2**48:
            raise CheckpointError(f"{self.path}: a storage claims {shown(count)} elements.")
        return self.storages.setdefault(key, _Storage(key, name.dtype, count))

    def _rebuild(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise UnsafeCheckpoint(f"{self.path}: its pickle calls something that is no function of tensors.")
        match function.path.rpartition(".")[2]:
            case "OrderedDict":
                # Python 2 wrote its pairs as an argument; each pair is taken out, so that no copy can be made twice.
                pairs = arguments[0] if arguments else []
                found = self._pairs([item for pair in pairs for item in (pair[0], pair[1])])
                pairs.clear()
                return found
            case "Size":
                return shape_of(arguments[0], f"{self.path}: a torch.Size")
            case "_rebuild_parameter" if arguments and isinstance(arguments[0], _Tensor):
                return arguments[0]
            case "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" if len(arguments) >= 4:
                storage, start, shape, strides = arguments[:4]
                lazily = arguments[6] if function.path.endswith("v2") and len(arguments) > 6 else None
                if lazily:  # "conj" and "neg": the numbers in the file are not yet those of the tensor
                    raise CheckpointError(f"{self.path}: a tensor awaits its negation or conjugate; save it without.")
                if isinstance(storage, _Storage) and type(start) is int and 0 <= start < 2**48:
                    named = arguments[6] if function.path.endswith("v3") and len(arguments) > 6 else None
                    dtype = named.dtype if isinstance(named, _Name) and named.dtype else storage.dtype
                    shape, strides = (
                        shape_of(shape, f"{self.path}: a tensor"),
                        shape_of(strides, f"{self.path}: strides"),
                    )
                    if len(shape) == len(strides):
                        return _Tensor(storage, dtype, start, shape, strides)
        raise UnsafeCheckpoint(f"{self.path}: its pickle calls {function.path!r} with something other than a tensor.")
