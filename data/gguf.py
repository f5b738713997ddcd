"""gguf.py - GGUF files in plain Python: models, tokenizers, and the tests' golden values.

Writing:
    gguf.write("x.gguf",
               {"general.architecture": ("string", "gpt2"), "gpt2.block_count": ("u32", 4),
                "some.epsilon": ("f32", 1e-5), "some.words": ("strings", ["a", "b"])},
               [("token_embd.weight", "F32", (C, V), data), ...])

    A key is (type, value): u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool string, and the same with
    an "s" appended for an array of them. A tensor is (name, type, dims, data): the dims are
    fastest first (a row-major [out][in] array is written (in, out)) and data is anything with
    bytes inside: bytes, array.array, or a contiguous numpy array of the tensor's own type.

Reading:
    f = gguf.read("x.gguf")
    f.value("gpt2.block_count")   4; when it is missing, a Failure that names file and key
    f.value("some.key", 0)        likewise, with a fallback
    f.value("x", type="int")      of another type it is a Failure; also float, bool and string, of
                                  any width, and with an s for an array
    f.keys                        {name: (type, value)}, as write() takes them
    f.tensors                     [Tensor(name, type, dims, data)], as write() takes them
    t = f.tensor("token_embd.weight")
    t.data                        bytes, or None after read(..., keys_only=True)
    numpy.frombuffer(t.data, numpy.float32).reshape(t.dims[::-1])

The file: "GGUF", version, counts, keys, tensor descriptions, padding, data; all little endian. The
sizes and offsets come from outside, so each is checked against the file's end before it is used.
"""
import collections
import math
import os
import struct

from files import Failure, atomic_open, open_regular, read_exactly

SCALARS = {   # name: (number in the file, struct's letter)
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"),
    "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"),
    "f64": (12, "d")}
STRING, ARRAY = 8, 9
TYPES = {   # name: (number in the file, bytes)
    "F32": (0, 4), "F16": (1, 2), "I32": (26, 4), "F64": (28, 8), "BF16": (30, 2)}
ALIGNMENT = 32

SCALAR_NAMES = {number: name for name, (number, _) in SCALARS.items()}
KINDS = {"string": "string",   # what a type is, its width aside
         **{name: {"?": "bool", "f": "float", "d": "float"}.get(letter, "int")
            for name, (_, letter) in SCALARS.items()}}
KINDS.update({name + "s": kind + "s" for name, kind in KINDS.items()})
TYPE_NAMES = {number: name for name, (number, _) in TYPES.items()}

Tensor = collections.namedtuple("Tensor", "name type dims data")


# ---- reading -------------------------------------------------------------------------------------

class Reader:
    """Reads from a file's beginning on, and asks it for no more than it has."""

    def __init__(self, path, file):
        self.path, self.file, self.at = path, file, 0
        self.size = os.fstat(file.fileno()).st_size

    def fail(self, message):
        raise Failure(f"{self.path}: byte {self.at}: {message}")

    def take(self, size, what):
        left = self.size - self.at
        if size > left:
            self.fail(f"{what} needs {size} bytes, only {left} are left (was the file cut short?)")
        self.at += size
        return read_exactly(self.file, size)

    def number(self, letter, what):
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter), what))[0]

    def string(self, what):
        raw = self.take(self.number("Q", f"length of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8: {raw[:40]!r}")

    def value(self, number, what):
        """The (type, value) of a key whose type has this number."""
        if number == STRING:
            return "string", self.string(what)
        if number == ARRAY:
            element = self.number("I", f"element type of {what}")
            count = self.number("Q", f"count of {what}")
            if element == STRING:
                if count > (self.size - self.at) // 8:
                    self.fail(f"{what} claims {count} strings, more than the file can hold")
                return "strings", [self.string(what) for _ in range(count)]
            if element in SCALAR_NAMES:
                name = SCALAR_NAMES[element]
                letter = SCALARS[name][1]
                raw = self.take(count * struct.calcsize("<" + letter), what)
                return name + "s", list(struct.unpack(f"<{count}{letter}", raw))
            self.fail(f"{what} is an array of type {element}, expected scalars or strings")
        if number not in SCALAR_NAMES:
            self.fail(f"{what} has type {number}, expected 0 to 12")
        name = SCALAR_NAMES[number]
        return name, self.number(SCALARS[name][1], what)


class File:
    def __init__(self, path, keys, tensors):
        self.path, self.keys, self.tensors = path, keys, tensors
        self.by_name = {t.name: t for t in tensors}

    def value(self, name, *fallback, type=None):
        if name in self.keys:
            found, value = self.keys[name]
            if type not in (None, KINDS[found]):
                raise Failure(f"{self.path}: key {name}: is of type {found}, expected {type}")
            return value
        if fallback:
            return fallback[0]
        raise Failure(f"{self.path}: key {name}: missing")

    def tensor(self, name):
        if name not in self.by_name:
            raise Failure(f"{self.path}: tensor {name}: missing")
        return self.by_name[name]


def read(path, keys_only=False):
    path = str(path)
    with open_regular(path) as f:
        return read_file(Reader(path, f), keys_only)


def read_file(r, keys_only):
    magic = r.take(min(4, r.size), "magic")
    if magic != b"GGUF":
        raise Failure(f"{r.path}: is not a GGUF file: begins with {magic!r}, not b'GGUF'")
    version = r.number("I", "version")
    if version != 3:
        r.fail(f"version {version}, expected 3 (a big-endian or very old file?)")
    tensor_count, key_count = r.number("Q", "tensor count"), r.number("Q", "key count")
    keys = {}
    for i in range(key_count):   # a huge count ends at the file's end: every key takes bytes
        name = r.string(f"name of key {i}")
        if name in keys:
            r.fail(f"key {name} appears twice")
        keys[name] = r.value(r.number("I", f"type of key {name}"), f"key {name}")
    return File(r.path, keys, read_tensors(r, tensor_count, keys, keys_only))


def read_tensors(r, tensor_count, keys, keys_only):
    alignment = keys.get("general.alignment", ("u32", ALIGNMENT))[1]
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        r.fail(f"key general.alignment is {alignment!r}, expected a power of two")
    found, names, expected = [], set(), 0
    for i in range(tensor_count):
        name = r.string(f"name of tensor {i}")
        if name in names:
            r.fail(f"tensor {name} appears twice")
        names.add(name)
        n_dims = r.number("I", f"dims of tensor {name}")
        if not 1 <= n_dims <= 4:
            r.fail(f"tensor {name} has {n_dims} dims, expected 1 to 4")
        dims = tuple(r.number("Q", f"dims of tensor {name}") for _ in range(n_dims))
        number = r.number("I", f"type of tensor {name}")
        offset = r.number("Q", f"offset of tensor {name}")
        if number not in TYPE_NAMES:
            r.fail(f"tensor {name} has type {number}, expected one of {', '.join(TYPES)}"
                   " (a quantized model?)")
        size = math.prod(dims) * TYPES[TYPE_NAMES[number]][1]   # Python's integers do not overflow
        if size == 0:
            r.fail(f"tensor {name} has no elements: dims {dims}")
        if offset != expected:
            r.fail(f"tensor {name} is at offset {offset}, expected {expected}, right after the one"
                   " before")
        expected += padded(size, alignment)
        found.append((name, TYPE_NAMES[number], dims, offset, size))
    start = padded(r.at, alignment)
    for name, _, dims, offset, size in found:
        if start + offset + size > r.size:
            r.fail(f"tensor {name} {dims} ends at byte {start + offset + size}, but the file has"
                   f" {r.size} (was it cut short?)")

    def data(offset, size):
        r.file.seek(start + offset)
        return read_exactly(r.file, size)

    return [Tensor(name, type, dims, None if keys_only else data(offset, size))
            for name, type, dims, offset, size in found]


# ---- writing -------------------------------------------------------------------------------------

def padded(size, alignment=ALIGNMENT):
    return (size + alignment - 1) // alignment * alignment


def pack_string(s):
    raw = s.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def pack_value(name, key):
    """The type's number and the value. A value that its type cannot hold is an error, never cut."""
    type, value = key
    try:
        if type == "string":
            return struct.pack("<I", STRING) + pack_string(value)
        if type == "strings":
            head = struct.pack("<IIQ", ARRAY, STRING, len(value))
            return head + b"".join(map(pack_string, value))
        if type in SCALARS:
            number, letter = SCALARS[type]
            return struct.pack("<I" + letter, number, value)
        if type[:-1] in SCALARS:
            number, letter = SCALARS[type[:-1]]
            return struct.pack(f"<IIQ{len(value)}{letter}", ARRAY, number, len(value), *value)
    except (struct.error, OverflowError, UnicodeEncodeError) as e:
        raise Failure(f"key {name}: {value!r:.60} is no {type}: {e}")
    raise Failure(f"key {name}: unknown type {type!r}, expected one of {', '.join(SCALARS)},"
                  " string, or one of these with an s for an array")


def write(path, keys, tensors=()):
    """Equal arguments give equal bytes. The alignment is always the default."""
    if "general.alignment" in keys:
        keys = {name: key for name, key in keys.items() if name != "general.alignment"}
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    for name, key in keys.items():
        head += pack_string(name), pack_value(name, key)
    offset, data, names = 0, [], set()
    for name, type, dims, values in tensors:
        number, width = TYPES[type]
        view = memoryview(values).cast("B")
        if len(view) != math.prod(dims) * width or not 1 <= len(dims) <= 4:
            raise Failure(f"tensor {name}: {len(view)} bytes do not fill {type} {tuple(dims)}")
        if name in names or len(name.encode()) > 63:
            raise Failure(f"tensor {name}: the name is used twice, or is longer than 63 bytes")
        names.add(name)
        head += (pack_string(name), struct.pack(f"<I{len(dims)}Q", len(dims), *dims),
                 struct.pack("<IQ", number, offset))
        data.append(view)
        offset += padded(len(view))
    head = b"".join(head)
    with atomic_open(path) as f:
        f.write(head.ljust(padded(len(head)), b"\0"))
        for view in data:
            f.write(view)
            f.write(bytes(padded(len(view)) - len(view)))
