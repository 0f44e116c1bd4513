"""A PyTorch file of any age seen through: its tensors and its plain values, whatever else its pickle asks for.

What `torchfile` refuses is here an opaque `Thing` whose name is noted: whole modules, optimizers, configurations,
TorchScript, tar files from before 0.1.10, plain pickles of numpy arrays. Nothing is called: for telling, not loading.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

from brolly.card import BITS, TensorInfo
from brolly.checkpoint.archives import Member, is_tar, member_file, read_directory, tar_members
from brolly.checkpoint.bounded import MAX_DEPTH, MAX_TENSORS, fault, opened, shape_of, shown
from brolly.checkpoint.pickles import Broken, Clock, Name, Spent, Stretch, Tape, opcodes
from brolly.checkpoint.torchfile import DTYPES, LEGACY_MAGIC, MARK, MAX_NAMES, STORAGES, WRAPPERS, marked
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.place import Where

QUANTISED = {"QInt8Storage": "I8", "QUInt8Storage": "U8", "QInt32Storage": "I32",
             "QUInt4x2Storage": "U8", "QUInt2x4Storage": "U8"}  # fmt: skip
NUMPY = {"f4": "F32", "f8": "F64", "f2": "F16", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8",
         "u2": "U16", "u4": "U32", "u8": "U64", "b1": "BOOL", "c8": "C64", "c16": "C128"}  # fmt: skip
DICTS = {"OrderedDict", "defaultdict", "Counter", "dict", "AttributeDict", "Box", "EasyDict", "ConfigDict"}
INNER = {"_parameters", "_buffers", "_modules"}  # of a torch.nn.Module: its tensors' names go without them
OPTIMIZERS = {"optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim", "opt"}
MAX_VALUES = 4000  # plain values that the metadata holds
MAX_TEXT = 2000  # letters of one of them


@dataclass(eq=False, slots=True)
class Thing:
    """An object of a kind that is not known: what makes it, of what, and what is put into it."""

    what: Any
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lying:
    """Where a tensor's numbers lie: from byte `start` of the storage `key`, or of the file itself where key is None."""

    dtype: str
    key: str | None
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    there: bool = True


def survey(path: Where) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Tensors by name, and the metadata that `torchfile.survey_torch` describes. Raises CheckpointError."""
    with opened(path) as (file, size):
        try:
            head = file.read(512)
            if head[:2] == b"PK":
                return _Survey(path, file, size).zip()
            if is_tar(head):
                return _Survey(path, file, size).tar()
            return _Survey(path, file, size).pickle()
        except Spent as error:
            raise UnsafeCheckpoint(f"{path}: {error}; its tensors were not listed.", "unscanned") from None
        except Broken as error:
            raise CheckpointError(f"{path}: the pickle is damaged ({error}); download it again.") from None
        except (LookupError, ValueError, TypeError, struct.error, OverflowError, MemoryError, RecursionError) as error:
            raise CheckpointError(f"{path} is not a whole PyTorch file ({fault(error)}); download it again.") from None


class _Survey:
    """One file, what its pickles name, and how their storages are found."""

    def __init__(self, path: Where, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.clock = Clock(600_000)
        self.names: set[Name] = set()
        self.storages: dict[str, tuple[str, int]] = {}  # key → dtype, elements
        self.saved: dict[int, Any] = {}  # tar: number → storage or tensor

    def zip(self) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
        directory = read_directory(self.file, self.size, str(self.path))
        members = {m.name: m for m in directory.members}
        pickles = sorted((n for n in members if n.rpartition("/")[2] == "data.pkl"), key=lambda n: (n.count("/"), n))
        if not pickles:
            raise CheckpointError(f"{self.path} is a zip archive without a data.pkl; expected a PyTorch checkpoint.")
        root = pickles[0].removesuffix("data.pkl")
        found = self._run(self._member(members[pickles[0]]))
        rows = _named(found, self.path)
        script = f"{root}constants.pkl" in members
        places = [_in_zip(self, members, f"{root}data/")]
        tensors = self._placed(rows, places[0])
        if script:
            constants = self._run(self._member(members[f"{root}constants.pkl"]))
            others = [(f"constants.{name}", t) for name, t in _named(constants, self.path)]
            tensors |= self._placed(others, _in_zip(self, members, f"{root}constants/"))
        return tensors, self._told("torchscript" if script else "zip", found)

    def _member(self, member: Member) -> Tape:
        file = member_file(self.file, member, self.size, str(self.path))
        return Tape(file, 0, min(member.size, 2**28))

    def tar(self) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
        """From before PyTorch 0.1.10: storages, tensors and the object each in a file of their own, all pickles."""
        members = {m.name: m for m in tar_members(self.file, self.size, str(self.path))}
        if not {"pickle", "storages", "tensors"} <= members.keys():
            raise CheckpointError(
                f"{self.path} is a tar archive, and no PyTorch checkpoint; unpack it and name a file in it."
            )
        tape = self._tape(members["storages"])
        starts: dict[str, tuple[int, int]] = {}
        for _ in range(_count(self._run(tape))):
            key, _, kind = self._run(tape)
            dtype = _dtype(kind) or "U8"
            n = self._number(tape)
            starts[str(key)] = tape.start + tape.at, n * BITS[dtype] // 8
            self.storages[str(key)] = dtype, n
            self.saved[int(key)] = _Storage(str(key), dtype, 0)
            tape.at += n * BITS[dtype] // 8
        for target, root, offset, _ in self._run(tape):
            known = self.saved[int(root)]
            self.saved[int(target)] = _Storage(known.key, known.dtype, known.shift + int(offset))
        tape = self._tape(members["tensors"])
        for _ in range(_count(self._run(tape))):
            key, storage, _ = self._run(tape)
            n_dims = self._number(tape) & 0xFFFFFFFF
            if n_dims > 16:
                raise ValueError(f"a tensor of {n_dims} dimensions")
            shape = tuple(self._number(tape) for _ in range(n_dims))
            strides = tuple(self._number(tape) for _ in range(n_dims))
            self.saved[int(key)] = self.lying(self.saved[int(storage)], self._number(tape), shape, strides)
        found = self._run(self._tape(members["pickle"]))
        return self._placed(_named(found, self.path), lambda key: starts.get(key)), self._told("tar", found)

    def _tape(self, member: Member) -> Tape:
        return Tape(self.file, member.start, member.size)

    def _number(self, tape: Tape) -> int:
        raw = tape.peek(8)
        if len(raw) < 8:
            raise Broken("it ends within a number")
        tape.at += 8
        number: int = struct.unpack("<q", raw)[0]
        if not 0 <= number < 2**48:
            raise ValueError(f"it counts to {number}")
        return number

    def pickle(self) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
        """PyTorch from before 1.6 (five pickles, then the storages), or any other pickle."""
        tape = Tape(self.file, 0, self.size)
        if tape.peek(1) not in (b"\x80", b"(", b"]", b"}", b"c"):
            raise CheckpointError(f"{self.path} is neither a zip archive nor a pickle; expected a PyTorch checkpoint.")
        found = self._run(tape)
        if found != LEGACY_MAGIC:
            return self._placed(_named(found, self.path), lambda key: None), self._told("pickle", found)
        self._run(tape), self._run(tape)
        found, keys = self._run(tape), self._run(tape)
        starts: dict[str, tuple[int, int]] = {}
        for key in keys if isinstance(keys, list) else []:
            dtype = self.storages.get(str(key), ("U8", 0))[0]
            n = self._number(tape) * BITS[dtype] // 8
            if n > tape.size - tape.at:
                raise CheckpointError(f"{self.path} ends within its storages; it is incomplete: download it again.")
            starts[str(key)] = tape.at, n
            tape.at += n
        return self._placed(_named(found, self.path), lambda key: starts.get(key)), self._told("legacy", found)

    def _run(self, tape: Tape) -> Any:
        return _Machine(self, tape).run()

    def _placed(
        self, rows: list[tuple[str, Lying]], place: Callable[[str], tuple[int, int] | None]
    ) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        for name, lying in rows:
            item = BITS[lying.dtype] // 8
            n = prod(lying.shape)
            plain = tuple(prod(lying.shape[i + 1 :]) for i in range(len(lying.shape)))
            strides = None if lying.strides in (None, plain) or n <= 1 else lying.strides
            span = n * item
            if strides is not None:
                span = (sum((a - 1) * b for a, b in zip(lying.shape, strides, strict=True)) + 1) * item
            start, held = lying.start, span
            if lying.key is not None:
                where = place(lying.key)
                if where is None:
                    raise CheckpointError(
                        f"{self.path} lacks the data of storage {shown(lying.key)}; download it again."
                    )
                start, held = where[0] + lying.start, where[1] - lying.start
            if lying.there and span > held:
                raise CheckpointError(
                    f"{self.path}: tensor {shown(name)} reaches beyond its storage; the file is damaged."
                )
            tensors[name] = TensorInfo(
                name,
                lying.dtype,
                lying.shape,
                self.path,
                start if lying.there else 0,
                span if lying.there else 0,
                strides,
            )
        return tensors

    def lying(self, storage: Any, start: Any, shape: Any, strides: Any, dtype: str | None = None) -> Lying:
        shape, strides = shape_of(shape, f"{self.path}: a tensor"), shape_of(strides, f"{self.path}: strides")
        if (
            not isinstance(storage, _Storage)
            or type(start) is not int
            or not 0 <= start < 2**48
            or len(shape) != len(strides)
        ):
            raise ValueError("a tensor is rebuilt from something else")
        dtype = dtype or storage.dtype
        item = BITS[dtype] // 8
        packed = storage.packed
        return Lying(dtype, storage.key, (start + storage.shift) * item, shape, None if packed else strides, not packed)

    def _told(self, container: str, found: Any) -> dict[str, Any]:
        kind = found.what if isinstance(found, Thing) and isinstance(found.what, Name) else None
        named = kind is None or kind.name in DICTS
        top = _children(found) if named and isinstance(found, (dict, Thing)) else {}
        plain = _Plain()
        values = {}
        for key, inside in list(top.items())[:1000]:
            if isinstance(key, str) and key not in OPTIMIZERS and not isinstance(inside, Lying):
                value = plain.value(inside)
                if value not in (None, {}, []):
                    values[key] = value
        version = top.get("pytorch-lightning_version")
        keys = [key for key in top if isinstance(key, str)]
        return {
            "container": container,
            "globals": sorted(f"{n.module}.{n.name}" for n in self.names),
            "top_level": keys[:200],
            "values": values,
            "object": None if kind is None or named else f"{kind.module}.{kind.name}",
            "lightning": version if isinstance(version, str) else None,
            "optimizer": bool(OPTIMIZERS & set(keys)) or {"state", "param_groups"} <= set(keys),
        }


def _in_zip(of: _Survey, members: dict[str, Member], folder: str) -> Callable[[str], tuple[int, int] | None]:
    from brolly.checkpoint.archives import data_start

    starts: dict[str, tuple[int, int]] = {}

    def place(key: str) -> tuple[int, int] | None:
        if key not in starts:
            member = members.get(folder + key)
            if member is None:
                return None
            starts[key] = data_start(of.file, member, of.size, str(of.path)), member.size
        return starts[key]

    return place


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_TENSORS:
        raise ValueError(f"it counts {shown(value)} storages")
    return value


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    shift: int  # elements
    packed: bool = False  # several numbers a byte


def _dtype(name: Any) -> str | None:
    leaf = name.name if isinstance(name, Name) else ""
    return STORAGES.get(leaf) or DTYPES.get(leaf) or QUANTISED.get(leaf)


class _Machine:
    """A stack and a memo; what is called becomes a Thing, a dictionary or where a tensor lies."""

    def __init__(self, of: _Survey, tape: Tape) -> None:
        self.of, self.tape = of, tape
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The one object that the pickle describes."""
        steps = 0
        for code, value in opcodes(self.tape):
            steps += 1
            if steps & 1023 == 0:
                self.of.clock.tick(1024)
            self._step(code, value)
        self.of.clock.tick(steps & 1023)
        return self.stack.pop()

    def _step(self, code: int, value: Any) -> None:
        stack = self.stack
        match code:
            case 0x71 | 0x72 | 0x70:  # BINPUT LONG_BINPUT PUT
                self.memo[value] = stack[-1]
            case 0x94:  # MEMOIZE
                self.memo[len(self.memo)] = stack[-1]
            case 0x68 | 0x6A | 0x67:  # BINGET LONG_BINGET GET
                stack.append(self.memo[value])
            case 0x28:  # MARK
                stack.append(MARK)
            case 0x7D:  # EMPTY_DICT
                stack.append({})
            case 0x5D | 0x8F:  # EMPTY_LIST EMPTY_SET
                stack.append([])
            case 0x29:  # EMPTY_TUPLE
                stack.append(())
            case 0x88 | 0x89:  # NEWTRUE NEWFALSE
                stack.append(code == 0x88)
            case 0x47:  # BINFLOAT
                stack.append(struct.unpack(">d", value.to_bytes(8, "big"))[0])
            case 0x46:  # FLOAT
                stack.append(None)
            case 0x74:  # TUPLE
                stack.append(tuple(marked(stack)))
            case 0x85 | 0x86 | 0x87:  # TUPLE1 TUPLE2 TUPLE3
                n = code - 0x84
                last = tuple(stack[-n:])
                del stack[-n:]
                stack.append(last)
            case 0x6C | 0x91:  # LIST FROZENSET
                stack.append(marked(stack))
            case 0x64:  # DICT
                values = marked(stack)
                stack.append({})
                self._set(values)
            case 0x61:  # APPEND
                last = stack.pop()
                self._extend([last])
            case 0x65 | 0x90:  # APPENDS ADDITEMS
                self._extend(marked(stack))
            case 0x73:  # SETITEM
                last, key = stack.pop(), stack.pop()
                self._set([key, last])
            case 0x75:  # SETITEMS
                self._set(marked(stack))
            case 0x63:  # GLOBAL
                stack.append(self._name(value))
            case 0x93:  # STACK_GLOBAL
                leaf, module = stack.pop(), stack.pop()
                stack.append(self._name(Name(str(module)[:200], str(leaf)[:200])))
            case 0x82 | 0x83 | 0x84:  # EXT1 EXT2 EXT4
                stack.append(self._name(Name("copyreg", f"extension {value}")))
            case 0x52 | 0x81:  # REDUCE NEWOBJ
                arguments, what = stack.pop(), stack.pop()
                stack.append(self._made(what, arguments))
            case 0x92:  # NEWOBJ_EX
                stack.pop()
                arguments, what = stack.pop(), stack.pop()
                stack.append(self._made(what, arguments))
            case 0x69:  # INST
                stack.append(self._made(self._name(value), tuple(marked(stack))))
            case 0x6F:  # OBJ
                values = marked(stack)
                stack.append(self._made(values[0], tuple(values[1:])))
            case 0x62:  # BUILD
                state = stack.pop()
                thing = stack[-1]  # the state of an OrderedDict is its _metadata, the versions of modules
                if isinstance(thing, Thing) and thing.what != Name("collections", "OrderedDict"):
                    thing.state = state
            case 0x51:  # BINPERSID
                stack.append(self._persistent(stack.pop()))
            case 0x50:  # PERSID
                stack.append(self._persistent(value))
            case 0x30:  # POP
                stack.pop()
            case 0x31:  # POPMARK
                marked(stack)
            case 0x32:  # DUP
                stack.append(stack[-1])
            case 0x80 | 0x95 | 0x2E | 0x98:  # PROTO FRAME STOP READONLY_BUFFER
                pass
            case _:
                stack.append(value)

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += values
        elif isinstance(target, Thing):
            target.rows += values

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        into = target.items if isinstance(target, Thing) else target
        if not isinstance(into, dict) or len(values) % 2:
            raise ValueError("pairs are set in what holds none")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, (str, int, float, type(None), Name)):
                into[f"{key.module}.{key.name}" if isinstance(key, Name) else key] = value

    def _name(self, name: Name) -> Name:
        if len(self.of.names) >= MAX_TENSORS:
            raise Spent("it names more globals than any real file")
        self.of.names.add(name)
        return name

    def _persistent(self, reference: Any) -> Any:
        """What the pickle leaves to its reader: a storage, a class with its source, or a number of the tar's."""
        if isinstance(reference, Stretch) or not isinstance(reference, (tuple, str, int)):
            return None
        if not isinstance(reference, tuple):
            return self.of.saved.get(int(reference)) if str(reference).isdecimal() else None
        if reference[:1] != ("storage",) or len(reference) < 5:
            return reference[1] if len(reference) > 1 else None
        _, kind, key, _, n = reference[:5]
        if type(n) is not int or not 0 <= n < 2**48:
            raise ValueError(f"a storage claims {shown(n)} elements")
        dtype = _dtype(kind) or "U8"
        shift = 0
        if len(reference) > 5 and isinstance(reference[5], tuple):
            shift = int(reference[5][1])
        self.of.storages.setdefault(str(key), (dtype, n))
        packed = isinstance(kind, Name) and kind.name in ("QUInt4x2Storage", "QUInt2x4Storage")
        return _Storage(str(key), dtype, shift, packed)

    def _made(self, what: Any, arguments: Any) -> Any:
        if not isinstance(what, Name) or not isinstance(arguments, tuple):
            return Thing(what, arguments)
        module, leaf = what
        if leaf in DICTS and (not arguments or not module.startswith("torch")):
            thing = Thing(what)
            first = arguments[0] if arguments else None
            if isinstance(first, dict):
                thing.items = first
            elif isinstance(first, (list, tuple)):  # Python 2 wrote pairs
                pairs = [p for p in first if isinstance(p, (list, tuple)) and len(p) == 2]
                thing.items = {p[0]: p[1] for p in pairs if isinstance(p[0], (str, int))}
            return thing
        if not module.startswith("torch"):
            return Thing(what, arguments)
        match leaf:
            case "Size":
                return shape_of(arguments[0], f"{self.of.path}: a torch.Size")
            case "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor":
                return arguments[0]
            case "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_qtensor" if len(arguments) >= 4:
                return self.of.lying(*arguments[:4])
            case "_rebuild_tensor_v3" if len(arguments) >= 7:
                storage, start, shape, strides = arguments[:4]
                return self.of.lying(storage, start, shape, strides, _dtype(arguments[6]))
            case "_rebuild_meta_tensor_no_storage" if len(arguments) >= 2:
                shape = shape_of(arguments[1], f"{self.of.path}: a tensor")
                return Lying(_dtype(arguments[0]) or "U8", None, 0, shape, there=False)
            case "_rebuild_sparse_tensor" if len(arguments) == 2 and isinstance(arguments[1], tuple):
                coordinates = len(arguments[1]) < 3 or not isinstance(arguments[1][2], Lying)
                parts = ["indices", "values"] if coordinates else ["compressed_indices", "plain_indices", "values"]
                return dict(zip(parts, arguments[1], strict=False))
            case "_rebuild_from_type_v2" if len(arguments) == 4:
                inner = self._made(arguments[0], arguments[2])
                return inner if isinstance(inner, Lying) else Thing(what, (), state=arguments[3])
        return Thing(what, arguments)


def _array(thing: Thing) -> Lying | None:
    """A numpy array, whose bytes lie in the pickle itself (or, by protocol 2, spelt as text: then not there)."""
    state, made = thing.state, thing.arguments
    if not isinstance(thing.what, Name) or thing.what.name not in ("_reconstruct", "_frombuffer"):
        return None
    if thing.what.name == "_frombuffer" and isinstance(made, tuple) and len(made) == 4:  # by protocol 5
        state = (1, made[2], made[1], False, made[0])
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Thing) or not state[2].arguments:
        return None
    word = state[2].arguments[0]
    dtype = NUMPY.get(word) if isinstance(word, str) else None
    if dtype is None or not isinstance(state[1], tuple):
        return None
    shape = shape_of(state[1], "an array")
    inline = isinstance(state[4], Stretch) and state[4].size == prod(shape) * BITS[dtype] // 8
    return Lying(dtype, None, state[4].start if inline else 0, shape, there=inline)


def _children(value: Any) -> dict[Any, Any]:
    """What lies within a value, by name."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)) and not isinstance(value, (Name, Stretch)):
        return dict(enumerate(value))
    if not isinstance(value, Thing):
        return {}
    found = dict(value.items)
    state = value.state
    if isinstance(state, tuple) and len(state) == 2 and all(isinstance(s, (dict, type(None))) for s in state):
        state = {**(state[0] or {}), **(state[1] or {})}  # attributes, and slots
    if isinstance(state, Thing):
        state = _children(state)
    if isinstance(state, dict):
        found |= state
    elif isinstance(state, (list, tuple)):
        found |= dict(enumerate(state))
    return found | dict(enumerate(value.rows))


def _named(found: Any, path: Where) -> list[tuple[str, Lying]]:
    """Every tensor with its dotted name; of a wrapped checkpoint, the weights without the name of their wrapper."""
    top = _children(found) if isinstance(found, (dict, Thing)) else {}
    wrapper = next((k for k in WRAPPERS if isinstance(top.get(k), (dict, Thing))), None)
    if wrapper is not None and any(isinstance(v, Lying) for v in top.values()):
        wrapper = None
    out: dict[str, Lying] = {}
    if wrapper is not None:
        _walk(top[wrapper], path, out)
        found = {k: v for k, v in top.items() if k != wrapper}
    _walk(found, path, out)
    return list(out.items())


def _walk(found: Any, path: Where, out: dict[str, Lying]) -> None:
    """Shared structures are met once, so that nesting cannot explode."""
    seen: set[int] = set()
    held = 0
    todo: list[tuple[str, Any, int]] = [("", found, 0)]
    while todo:
        name, value, depth = todo.pop()
        value = (_array(value) or value) if isinstance(value, Thing) else value
        if isinstance(value, Lying):
            out.setdefault(name or "tensor", value)
        elif isinstance(value, (dict, list, tuple, Thing)) and id(value) not in seen and depth < MAX_DEPTH:
            seen.add(id(value))
            rows = []
            for key, inside in _children(value).items():
                if isinstance(key, (str, int)) and isinstance(inside, (Lying, dict, list, tuple, Thing)):
                    inner = isinstance(value, Thing) and key in INNER
                    label = str(key)[:1000].encode(errors="replace").decode()
                    full = name if inner else (f"{name}.{label}" if name else label)
                    rows.append((full, inside, depth + 1))
                    held += len(full) + 64
            todo += reversed(rows)
        if held > MAX_NAMES or len(out) + len(todo) > MAX_TENSORS:
            raise UnsafeCheckpoint(f"{path} holds more values than any real checkpoint does.")


class _Plain:
    """Plain values of bounded number and depth, for the metadata."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def value(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0 or depth > 6:
            return None
        if isinstance(value, (bool, int, float, type(None))):
            return None if type(value) is int and value.bit_length() > 64 else value
        if isinstance(value, str):
            return value[:MAX_TEXT].encode(errors="replace").decode()
        if isinstance(value, Name):
            return f"{value.module}.{value.name}"
        if isinstance(value, dict) or isinstance(value, Thing) and not _array(value):
            inside = _children(value)
            for key in ("_content", "_val"):  # OmegaConf's nodes
                if isinstance(value, Thing) and key in inside:
                    return self.value(inside[key], depth + 1)
            kept = {
                str(k)[:200]: self.value(v, depth + 1)
                for k, v in list(inside.items())[:500]
                if isinstance(k, (str, int))
            }
            return {k: v for k, v in kept.items() if v is not None}
        if isinstance(value, (list, tuple)) and not isinstance(value, Stretch):
            return [self.value(v, depth + 1) for v in value[:500]]
        return None
