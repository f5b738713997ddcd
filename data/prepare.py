#!/usr/bin/env python3
"""prepare.py - from text to token shards: prepare.py FILE... --tokenizer bpe:1024 --out DIR

Reads any UTF-8 text, JSON arrays and JSONL, and writes into DIR
    train_000.bin ... val_000.bin ...   tokens: a header of 256 int32, then uint16
    tokenizer.gguf                      the vocabulary, for the trainer and for the runtime
    manifest.json                       sha256 of all that was read and written, counts, marks

The header is llm.c's: 20240520, 1, the count of tokens, zeros; but words 3 to 10 hold the 32 bytes
of the tokenizer's fingerprint (bpe.py), which tokenizer.gguf has as a key and every model inherits.
All zero, as llm.c leaves them, they say nothing.

A text file is one document, unless lines that read <|endoftext|> separate several; such a line
goes, its line break included, and so does a byte order mark at the start. A JSON array or a JSONL
file has a document per string, or per object in its --field. A document of nothing but white space
is none. The end-of-text token precedes every document.

What is in DIR stays until all is written, and is replaced only if an earlier run's manifest.json
lists it. While the new files are moved there, DIR/.prepare.tmp/manifest.json exists: old files may
then lie beside new ones, and the next run goes on with the moves.

Documents are streamed in pieces, so that a corpus may be larger than memory. A piece ends where a
word ends and white space follows: GPT-2's pattern cuts there whatever else surrounds it, so the
pieces' tokens are exactly the document's tokens.
"""
import array
import codecs
import collections
import contextlib
import fcntl
import json
import math
import os
import re
import shlex
import struct
import sys

import bpe
import download
import gguf
from files import (Failure, atomic_open, naming, open_regular, parser, read_object, run,
                   sha256_file, shown, sync_folder, visible)

BLOCK = 1 << 20
SEPARATOR = re.compile(r"^<\|endoftext\|>\r?(?:\n|\Z)", re.M)
SHARD_TOKENS = 100_000_000
OWN = re.compile(r"(train|val)_\d{3,}\.bin|tokenizer\.gguf")   # what a manifest may list
READ = re.compile(r"(train|val)_.*\.bin|tokenizer\.gguf")      # what a trainer would read with it
WORK = ".prepare.tmp"
NOT_UTF8 = (   # how a file begins that is no UTF-8, what it is, and what makes UTF-8 of it
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", "UTF-32", "iconv -f utf-32 -t utf-8 {}"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16", "iconv -f utf-16 -t utf-8 {}"),
    (rb"\x1f\x8b", "a gzip file", "gunzip -c < {}"),
    (rb"BZh[1-9]1AY", "a bzip2 file", "bunzip2 -c < {}"),
    (rb"\xfd7zXZ\0", "an xz file", "xz -dc < {}"),
    (rb"\x28\xb5\x2f\xfd", "a zstd file", "zstd -dc < {}"),
    (rb"PK\x03\x04", "a zip file", "unzip -p {}, or for a .docx or .epub: pandoc -t plain {}"),
    (rb"%PDF-\d", "a PDF", "pdftotext {} -"),
    (rb".{257}ustar(  )?\0", "a tar archive", "tar -xOf {}"))
GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"}


# ---- documents -----------------------------------------------------------------------------------
# Each reader yields (starts a document, piece of text).

def pieces(path, field):
    name = path.lower()
    if name.endswith((".json", ".jsonl", ".ndjson")):
        first = next((c for block in read_blocks(path) for c in block.lstrip()[:1]), "")
        values = json_array(path) if first == "[" else json_lines(path)
        for number, value in enumerate(values, 1):
            text = document_text(path, number, value, field)
            if text.strip(bpe.WHITESPACE):
                yield True, text
    else:
        yield from text_pieces(path)


def read_blocks(path):
    """The file as text, a block at a time. A byte order mark at its start is dropped."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with open_regular(path) as f:
        start = f.read(4096)
        for pattern, kind, command in NOT_UTF8:
            if re.match(pattern, start, re.S):
                command = command.replace("{}", shlex.quote(path))
                raise Failure(f"{path}: is {kind}, expected UTF-8 text (convert it first:"
                              f" {command} > FILE.txt)")
        f.seek(0)
        while True:
            block = f.read(BLOCK)
            if b"\0" in block:
                at = f.tell() - len(block) + block.index(0)
                raise Failure(f"{path}: byte {at}: a NUL, which no text has"
                              f" ({why_nul(start, shlex.quote(path))})")
            try:
                yield decoder.decode(block, final=not block)
            except UnicodeDecodeError as e:   # e.object begins with what the last block left over
                at = f.tell() - len(e.object) + e.start
                raise Failure(f"{path}: byte {at}: 0x{e.object[e.start]:02x} is not UTF-8 here:"
                              f" {e.reason} (if it is Latin-1, convert it first: iconv -f latin1 -t"
                              " utf-8)")
            if not block:
                return


def why_nul(start, path):
    """A guess at what a file is that has NULs, from its first 4 KB. Hardly anything but UTF-32 can
    be read as UTF-32. As UTF-16 nearly everything can, but there every space and Latin letter has
    a NUL: there are many, and all in even places or all in odd ones."""
    def reads_as(encoding):
        try:
            return "\0" not in start.decode(encoding)
        except UnicodeDecodeError:
            return False

    many = start.count(0) > 1 and start.count(0) * 200 > len(start)
    for encoding, fits in (("utf-32le", reads_as("utf-32le")), ("utf-32be", reads_as("utf-32be")),
                           ("utf-16le", many and 0 not in start[::2]),
                           ("utf-16be", many and 0 not in start[1::2])):
        if fits:
            return (f"it looks like UTF-{encoding[4:6]}; convert it first: iconv -f {encoding} -t"
                    f" utf-8 {path} > FILE.txt")
    return f"is it text at all? if so: tr -d '\\000' < {path} > FILE.txt"


def whole_lines(blocks):
    """The same text in parts that end with a line break."""
    rest = []
    for block in blocks:
        end = block.rfind("\n") + 1
        if end:
            yield "".join(rest) + block[:end]
            rest = []
        rest.append(block[end:])
    yield "".join(rest)


def text_pieces(path):
    carry, starts = "", True   # carry: the white space that ended the part before
    for lines in whole_lines(read_blocks(path)):
        for i, part in enumerate(SEPARATOR.split(lines)):
            if i > 0:
                if not starts and carry:
                    yield False, carry
                carry, starts = "", True   # a document of nothing but white space is none
            text = carry + part
            body = text.rstrip(bpe.WHITESPACE)
            carry = text[len(body):]
            if body:
                yield starts, body
                starts = False
    if not starts and carry:
        yield False, carry


def json_lines(path):
    number = 0
    for lines in whole_lines(read_blocks(path)):
        for line in lines.split("\n"):
            number += 1
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as e:
                    raise Failure(f"{path}: line {number}: is not JSON: {e} (expected a string or"
                                  " an object on each line, or one array in the whole file)")
        number -= 1   # the parts end with a line break, so the last "line" is the next part's first


def json_array(path):
    """The elements of one large array, each parsed as soon as it is complete."""
    decode = json.JSONDecoder().raw_decode
    blocks = read_blocks(path)
    text, at, ended = "", 0, False   # text[at:] is not parsed yet

    def more():
        """Reads at least as much again, so that a long element is not parsed from its start too
        often."""
        nonlocal text, at, ended
        parts, size = [text[at:]], 0
        while not ended and size <= len(text) - at:
            block = next(blocks, None)
            ended = block is None
            parts.append(block or "")
            size += len(parts[-1])
        text, at = "".join(parts), 0

    def next_character():
        nonlocal at
        while True:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            if at < len(text):
                return text[at]
            if ended:
                raise Failure(f"{path}: element {number + 1}: the file ends inside the array,"
                              " expected a ] (was it cut short?)")
            more()

    number = 0
    next_character()
    at += 1   # the [
    while next_character() != "]":
        while True:
            try:
                value, end = decode(text, at)
                break
            except RecursionError:
                raise Failure(f"{path}: element {number + 1}: is nested too deeply")
            except json.JSONDecodeError as e:
                cut = e.msg.startswith("Unterminated string") or e.pos > len(text) - 16
                if ended or not cut:
                    raise Failure(f"{path}: element {number + 1}: is not JSON: {e.msg}:"
                                  f" {text[e.pos:][:40]!r}")
                more()
            except ValueError as e:   # a number of more digits than Python converts
                raise Failure(f"{path}: element {number + 1}: {e}")
        at, number = end, number + 1
        yield value
        if next_character() == ",":
            at += 1
        elif text[at] != "]":
            raise Failure(f"{path}: after element {number}: {text[at]!r}, expected a comma or a ]")
    at += 1
    if text[at:].strip() or any(block.strip() for block in blocks):
        raise Failure(f"{path}: after the array's ]: more text, expected the end of the file")


def document_text(path, number, value, field):
    if isinstance(value, dict):
        if field not in value:
            raise Failure(f"{path}: document {number}: has no field {field!r}, only"
                          f" {', '.join(value):.200} (name the right one with --field)")
        value = value[field]
    if not isinstance(value, str):
        raise Failure(f"{path}: document {number}: {shown(value)} is no text: expected a string, or"
                      " an object with one")
    # JSON can spell half of a surrogate pair, which no UTF-8 text can hold: it becomes U+FFFD.
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# ---- train or val --------------------------------------------------------------------------------

def plan(files, val_files, fraction, field):
    """Looks at all documents once. Returns a function that yields them again and again, as
    ("train" or "val", starts a document, piece), and how many characters there are in all."""
    def all_pieces(paths):
        return (piece for path in paths for piece in pieces(path, field))

    documents = characters = 0
    for starts, piece in all_pieces(files):
        documents += starts
        characters += len(piece)
    if documents == 0:
        raise Failure(f"{', '.join(files)}: no text in it")
    total = characters + sum(len(piece) for _, piece in all_pieces(val_files))
    lone = documents == 1 and fraction > 0 and not val_files
    cut = nearest_line_break(all_pieces(files), (1 - fraction) * characters) if lone else None
    if lone and not 0 < cut < characters:
        raise Failure(f"{files[0]}: one document without a line break inside, so it cannot be split"
                      " for validation (give --val FILE, or --val-fraction 0)")
    val_documents = min(max(1, round(documents * fraction)), documents - 1)
    if fraction == 0 or val_files:
        val_documents = 0

    def split():
        at, index = 0, -1
        for starts, piece in all_pieces(files):
            index += starts
            if lone:
                i = max(0, min(len(piece), cut - at))
                if i > 0:
                    yield "train", starts, piece[:i]
                if i < len(piece):
                    yield "val", at <= cut, piece[i:]
                at += len(piece)
            else:   # every so many documents one for validation, evenly spread
                val = (index + 1) * val_documents // documents > index * val_documents // documents
                yield "val" if val else "train", starts, piece
        for starts, piece in all_pieces(val_files):
            yield "val", starts, piece

    return split, total


def nearest_line_break(parts, target):
    """The position after the line break nearest to target, or 0 where there is none."""
    best = at = 0
    for _, piece in parts:
        i = int(min(max(target - at, 0), len(piece)))
        for position in (piece.rfind("\n", 0, i), piece.find("\n", i)):
            after = at + position + 1
            if position >= 0 and (best == 0 or abs(after - target) < abs(best - target)):
                best = after
        at += len(piece)
    return best


# ---- the tokenizer -------------------------------------------------------------------------------

def choose_tokenizer(spec, split, gpt2_dir):
    """The tokenizer that --tokenizer asks for, its keys for tokenizer.gguf, and its name."""
    if spec == "gpt2":
        paths = [gpt2_file(name, sha256, gpt2_dir) for name, sha256 in GPT2_SHA256.items()]
        tokenizer = bpe.from_gpt2(*paths)
    elif spec == "bytes":
        tokenizer = bpe.from_merges([])
    elif re.fullmatch(r"bpe:[0-9]{1,9}", spec):
        tokenizer = train_bpe(int(spec[4:]), split)
    elif spec.endswith(".gguf"):
        f = gguf.read(spec, keys_only=True)
        tokenizer = bpe.from_gguf(f)
        if len(tokenizer.tokens) > 65536:
            raise Failure(f"{spec}: {len(tokenizer.tokens)} tokens, expected at most 65536 (shards"
                          " hold uint16)")
        own = {name: key for name, key in f.keys.items() if name.startswith("tokenizer.ggml.")}
        name = f.value("general.name", "unnamed", type="string")
        return tokenizer, bpe.to_keys(tokenizer, own), name
    else:
        raise Failure(f"--tokenizer {spec}: expected gpt2, bpe:N (such as bpe:1024), bytes, or a"
                      " FILE.gguf")
    return tokenizer, bpe.to_keys(tokenizer), spec


def gpt2_file(name, sha256, folder):
    """vocab.bpe or encoder.json: from a folder, or downloaded once into the user's cache."""
    if not folder:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return download.fetch(GPT2_URL + name, os.path.join(cache, "legible", name), sha256)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise Failure(f"--gpt2-dir {folder}: no {name}, expected vocab.bpe and encoder.json")
    download.check(path, sha256, "not OpenAI's file; for others use --tokenizer FILE.gguf")
    return path


def train_bpe(size, split):
    if not 257 <= size <= 65536:
        raise Failure(f"--tokenizer bpe:{size}: expected 257 (256 bytes and end-of-text) to 65536"
                      " (a shard's tokens are uint16)")
    counts = collections.Counter()
    for name, _, piece in split():
        if name == "train":
            counts.update(bpe.split(piece))
    say(f"learning {size - 257} merges from {len(counts):,} distinct words")
    merges = bpe.train(counts, size - 257)
    if len(merges) < size - 257:
        say(f"the merges ran out: after {len(merges)} of {size - 257} no pair of tokens occurs"
            f" twice any more, so the vocabulary has {257 + len(merges)} tokens, not {size}",
            keep=True)
    return bpe.from_merges(merges)


def fastest_encoder(tokenizer, sample):
    """tiktoken where it is installed and gives the same ids, else bpe.py's own encoder. tiktoken
    takes a token's id for its rank, so the ids must follow the order of the merges, as they do in
    GPT-2."""
    try:
        import tiktoken
    except ImportError:
        return tokenizer.encode, "bpe.py"
    by_rank = [id for _, id in sorted(tokenizer.merges.values())]
    if by_rank != sorted(set(by_rank)) or len(by_rank) + 257 != len(tokenizer.tokens):
        return tokenizer.encode, "bpe.py"
    ranks = {token: id for id, token in enumerate(tokenizer.tokens) if id != tokenizer.end_of_text}
    fast = tiktoken.Encoding("own", pat_str=bpe.split_pattern(), mergeable_ranks=ranks,
                             special_tokens={bpe.END_OF_TEXT: tokenizer.end_of_text})
    if fast.encode_ordinary(sample) != tokenizer.encode(sample):
        say("tiktoken gives other ids with this vocabulary, so it is not used", keep=True)
        return tokenizer.encode, "bpe.py"
    return fast.encode_ordinary, f"tiktoken {tiktoken.__version__}"


# ---- shards --------------------------------------------------------------------------------------

class Shards:
    """NAME_000.bin, NAME_001.bin ... in a folder, with at most `limit` tokens each, which a
    tokenizer with this fingerprint made."""

    def __init__(self, folder, name, limit, fingerprint):
        self.folder, self.name, self.limit, self.fingerprint = folder, name, limit, fingerprint
        self.files, self.sizes, self.file = [], [], None

    def add(self, tokens):
        while tokens:
            if self.file is None or self.sizes[-1] == self.limit:
                self.close()
                self.files.append(f"{self.name}_{len(self.files):03d}.bin")
                self.sizes.append(0)
                self.file = open(os.path.join(self.folder, self.files[-1]), "wb")
                self.file.write(bytes(1024))   # the header's place
            part, tokens = split_at(tokens, self.limit - self.sizes[-1])
            with naming(self.file.name):
                self.file.write(little_endian(array.array("H", part)))
            self.sizes[-1] += len(part)

    def close(self):
        if self.file:
            head = struct.pack("<3i32s", 20240520, 1, self.sizes[-1], self.fingerprint)
            with naming(self.file.name), self.file:
                self.file.seek(0)
                self.file.write(head)
                self.file.flush()
                os.fsync(self.file.fileno())
            self.file = None

    def paths(self):
        return [os.path.join(self.folder, file) for file in self.files]


def split_at(tokens, n):
    return (tokens, []) if len(tokens) <= n else (tokens[:n], tokens[n:])


def little_endian(numbers):
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def write_shards(shards, split, total, encode, end_of_text):
    """Fills {"train": Shards, "val": Shards} and returns {"train": counts, "val": counts}."""
    counts = {name: {"documents": 0, "bytes": 0, "tokens": 0} for name in shards}
    done = told = 0
    for name, starts, piece in split():
        tokens = [end_of_text] * starts + encode(piece)
        shards[name].add(tokens)
        counts[name]["documents"] += starts
        counts[name]["bytes"] += len(piece.encode("utf-8"))
        counts[name]["tokens"] += len(tokens)
        done += len(piece)
        if done - told >= total / 100:
            told = done
            say(f"{done / total:4.0%} of {total:,} characters")
    for s in shards.values():
        s.close()
    return counts


# ---- the marks -----------------------------------------------------------------------------------

def ngrams(paths, n):
    """Counts of the n-grams in the shards, in parts of a bounded size: Counters to be added up."""
    tail = array.array("H")
    for path in paths:
        with open(path, "rb") as f:
            f.seek(1024)
            for block in iter(lambda: f.read(2 * BLOCK), b""):
                tokens = tail + little_endian(array.array("H", block))
                yield collections.Counter(zip(*(tokens[i:] for i in range(n))))
                tail = tokens[len(tokens) - min(n - 1, len(tokens)):]


def entropy(n, vocabulary, train, val):
    """What a model that looks at n-1 tokens and only counts would reach on val, in nats per token:
        p(token | n-1 before it) = (count of the n-gram in train + 0.1) / (count of the n-1 + 0.1 *
        V)
    A language model that does not go below has learned nothing about sentences. Only the n-grams
    that val asks for are counted in train, so memory is bounded by val."""
    asked = collections.Counter()
    for part in ngrams(val, n):
        asked.update(part)
    if not asked:
        return None
    seen, contexts = dict.fromkeys(asked, 0), dict.fromkeys((gram[:-1] for gram in asked), 0)
    for part in ngrams(train, n):
        for gram, count in part.items():
            if gram[:-1] in contexts:
                contexts[gram[:-1]] += count
                if gram in seen:
                    seen[gram] += count
    nats = sum(count * math.log((contexts[gram[:-1]] + 0.1 * vocabulary) / (seen[gram] + 0.1))
               for gram, count in asked.items())
    return nats / sum(asked.values())


# ---- main ----------------------------------------------------------------------------------------

def say(message, keep=False):
    """Progress on stderr: on a terminal one line that is written over, unless it is to be kept."""
    if sys.stderr.isatty():
        print(f"\r\033[K{message}", end="\n" if keep else "", file=sys.stderr, flush=True)
    elif keep:
        print(message, file=sys.stderr, flush=True)


def arguments(argv):
    p = parser(__doc__)
    p.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text, .json (array) or .jsonl")
    p.add_argument("--out", required=True, metavar="DIR", help="where the shards go")
    p.add_argument("--tokenizer", default="bpe:1024", metavar="WHICH",
                   help="gpt2, bpe:N, bytes or a FILE.gguf (default bpe:1024)")
    p.add_argument("--val", nargs="+", default=[], metavar="FILE",
                   help="validation text, instead of a part of FILE")
    p.add_argument("--val-fraction", type=float, metavar="F",
                   help="the part that is kept for validation (default 0.1)")
    p.add_argument("--field", default="text", help="the field of JSON objects (default text)")
    p.add_argument("--gpt2-dir", metavar="DIR", help="where GPT-2's vocab.bpe and encoder.json are")
    p.add_argument("--shard-tokens", type=int, default=SHARD_TOKENS, metavar="N",
                   help=f"tokens in a shard (default {SHARD_TOKENS:,})")
    p.add_argument("--licence", default="not stated", help="of the text, for the manifest")
    a = p.parse_args(argv)
    if a.val and a.val_fraction is not None:
        raise Failure("--val-fraction: --val already says what to validate on; give one of the two")
    a.val_fraction = 0.1 if a.val_fraction is None else a.val_fraction
    if not 0 <= a.val_fraction < 1:
        raise Failure(f"--val-fraction {a.val_fraction}: expected 0 or more, and less than 1")
    if not 1 <= a.shard_tokens < 1 << 31:
        raise Failure(f"--shard-tokens {a.shard_tokens}: expected 1 to 2^31 - 1, as the header's"
                      " count is an int32")
    for path in a.files + a.val:
        if os.path.isdir(path):
            raise Failure(f"{path}: is a folder, expected files (such as {path}/*.txt)")
    return a


def build(a, argv, folder):
    """Writes everything into folder, the manifest last, and returns the manifest."""
    say("reading")
    split, total = plan(a.files, a.val, a.val_fraction, a.field)
    tokenizer, keys, kind = choose_tokenizer(a.tokenizer, split, a.gpt2_dir)
    sample = next(piece for _, _, piece in split())[:100_000]
    encode, encoder = fastest_encoder(tokenizer, sample)
    vocabulary, fingerprint = len(tokenizer.tokens), keys[bpe.FINGERPRINT][1]
    shards = {name: Shards(folder, name, a.shard_tokens, bytes.fromhex(fingerprint))
              for name in ("train", "val")}
    counts = write_shards(shards, split, total, encode, tokenizer.end_of_text)
    gguf.write(os.path.join(folder, "tokenizer.gguf"),
               {"general.architecture": ("string", "gpt2"), "general.name": ("string", kind),
                **keys})
    say("measuring the marks")
    train, val = shards["train"], shards["val"]
    marks = {mark: entropy(n, vocabulary, train.paths(), val.paths())
             for mark, n in (("bigram", 2), ("trigram", 3))}
    manifest = {
        "command": ["prepare.py", *argv],
        "licence": a.licence,
        "inputs": [{"file": path, "bytes": os.path.getsize(path), "sha256": sha256_file(path)}
                   for path in a.files + a.val],
        "tokenizer": {"file": "tokenizer.gguf", "kind": kind, "tokens": vocabulary,
                      "end_of_text": tokenizer.end_of_text, "encoder": encoder,
                      "fingerprint": fingerprint,
                      "sha256": sha256_file(os.path.join(folder, "tokenizer.gguf"))},
        "shards": [{"file": file, "tokens": size, "sha256": sha256_file(path)} for s in (train, val)
                   for file, size, path in zip(s.files, s.sizes, s.paths())],
        "train": counts["train"], "val": counts["val"],
        "marks_nats_per_token": marks,
        "mark": min((mark for mark in marks if marks[mark] is not None), key=marks.get,
                    default=None)}
    with atomic_open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8",
                     errors="backslashreplace") as f:   # a file name that is not UTF-8: "\udcff"
        json.dump(manifest, f, indent=1, ensure_ascii=False)
        f.write("\n")
    return manifest


# ---- what is replaced ----------------------------------------------------------------------------
# A run replaces and deletes files of --out, so it must know that they are its own.

def listed(folder):
    """{name: sha256} of the shards and the tokenizer in a folder's manifest.json; {} without it."""
    path = os.path.join(folder, "manifest.json")
    if not os.path.lexists(path):
        return {}
    manifest = read_object(path)
    try:
        rows = [manifest["tokenizer"], *manifest["shards"]]
        found = {row["file"]: row["sha256"] for row in rows if OWN.fullmatch(row["file"])}
    except (KeyError, TypeError):
        raise Failure(f"{path}: was not written by prepare.py, which would replace it (move it, or"
                      " choose another --out)")
    return found


def check_replaced(a):
    """Refuses, before anything is written, if the run would replace, delete or be read together
    with what is not its own."""
    own = listed(a.out)
    for name in sorted(os.listdir(a.out)):
        path = os.path.join(a.out, name)
        if READ.fullmatch(name) and (name not in own or os.path.islink(path)
                                     or sha256_file(path) != own[name]):
            raise Failure(f"{path}: is not as {a.out}/manifest.json lists it, so it is not"
                          " prepare.py's to replace (move it, or choose another --out)")
    for path in a.files + a.val:
        folder, name = os.path.split(os.path.realpath(path))
        if folder == os.path.realpath(a.out) and (READ.fullmatch(name) or name == "manifest.json"):
            raise Failure(f"{path}: is read, and would be replaced (choose another --out)")


def discard(folder):
    """Deletes what a run that did not finish has left, and nothing else. The manifest goes first,
    since it says that the rest is whole."""
    if not os.path.lexists(folder):
        return
    names = sorted(os.listdir(folder), key=lambda name: name != "manifest.json")
    own = OWN.pattern + r"|(tokenizer\.gguf|manifest\.json)(\.[0-9a-f]+\.tmp)?"
    for name in names:
        if not re.fullmatch(own, name):
            raise Failure(f"{folder}/{name}: prepare.py did not write this, and works in this"
                          " folder (move it)")
    for name in names:
        os.remove(os.path.join(folder, name))
    os.rmdir(folder)


def finish(out):
    """Moves what lies ready in .prepare.tmp to its place. It is ready when its manifest.json is
    there, and that is moved last: whenever this is killed, it can be called again."""
    folder = os.path.join(out, WORK)
    new, old = listed(folder), listed(out)
    if not new:
        return
    for name in old.keys() - new.keys():   # shards of an earlier run that had more of them
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(out, name))
    for name in new:
        with contextlib.suppress(FileNotFoundError):   # it was moved before
            os.replace(os.path.join(folder, name), os.path.join(out, name))
    sync_folder(out)
    os.replace(os.path.join(folder, "manifest.json"), os.path.join(out, "manifest.json"))
    os.rmdir(folder)
    sync_folder(out)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    a = arguments(argv)
    os.makedirs(a.out, exist_ok=True)
    folder = os.path.join(a.out, WORK)
    if os.path.islink(folder):
        raise Failure(f"{folder}: is a link, expected a folder of prepare.py's own, or nothing")
    with locked(a.out):
        finish(a.out)   # a run that was killed may have left this to do
        check_replaced(a)
        discard(folder)
        try:
            os.mkdir(folder)   # an interrupt may come before the next line
            manifest = build(a, argv, folder)
        except BaseException:   # Ctrl-C as well
            discard(folder)
            raise
        finish(a.out)
    say("done")
    if sys.stderr.isatty():
        print(file=sys.stderr)
    report(a.out, manifest)


@contextlib.contextmanager
def locked(folder):
    """Only one run at a time may work in a folder. The system ends the lock with the process."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure(f"{folder}: another prepare.py is writing into it (wait until it has ended)")
    try:
        yield
    finally:
        os.close(fd)


def report(out, manifest):
    for name in ("train", "val"):
        c = manifest[name]
        print(f"{name:5} {c['documents']:>9,} documents {c['bytes']:>13,} bytes"
              f" {c['tokens']:>13,} tokens")
    t, marks, mark = manifest["tokenizer"], manifest["marks_nats_per_token"], manifest["mark"]
    print(f"vocabulary {t['tokens']:,} tokens ({visible(t['kind'])}), encoded with {t['encoder']}")
    if marks["trigram"] is not None:
        print(f"counting pairs and triples of tokens reaches on val, in nats per token: bigram"
              f" {marks['bigram']:.4f}, trigram {marks['trigram']:.4f}")
        print(f"the mark to pass is the {mark}'s, {marks[mark]:.4f}: a model that stays above has"
              " learned less than to count")
    print(f"written to {visible(out)}: {len(manifest['shards'])} shards, tokenizer.gguf,"
          " manifest.json")


if __name__ == "__main__":
    run(main)
