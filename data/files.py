"""files.py - what files.h is to the C++ programs: how to fail, how to read what comes from outside,
and how to write a file so that a crash never leaves half of it.

    raise Failure("corpus.txt: byte 17: not UTF-8 (convert it first: iconv -f latin1 -t utf-8)")
    with open_regular("corpus.txt") as f: ...   bytes; a FIFO or a folder is a Failure
    read_object("config.json")                  a JSON object; anything else is a Failure
    with atomic_open("out.bin") as f: ...       the file appears complete, or not at all
    p = parser(__doc__)                         argparse, with our kind of errors
    run(main)                                   main(); a Failure becomes one line and exit code 1
"""
import argparse
import contextlib
import hashlib
import json
import os
import secrets
import signal
import stat
import sys


class Failure(Exception):
    """Something that the user can mend. The message names the file, what was found, what was
    expected."""


# ---- reading -------------------------------------------------------------------------------------

def open_regular(path):
    """A file's bytes. Only a regular file has a size, can be read twice, and ends: opening a FIFO
    would wait for a writer, if need be for ever, but not with O_NONBLOCK."""
    try:
        f = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except IsADirectoryError:
        raise Failure(f"{path}: is a folder, expected a file")
    if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
        f.close()
        raise Failure(f"{path}: is not a regular file (a pipe? write it to a file first)")
    return f


def read_exactly(f, size):
    """Another program may cut the file short at any time. In a mapping that would be a SIGBUS."""
    data = f.read(size)
    if len(data) != size:
        raise Failure(f"{f.name}: was cut short while it was read (replace a file in use by"
                      " renaming, not in place)")
    return data


def sha256_file(path):
    digest = hashlib.sha256()
    with open_regular(path) as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_object(path):
    with open_regular(path) as f:
        return parse_object(path, f.read())


def parse_object(where, raw):
    """A JSON object from bytes. A name that is given twice, or a NaN, which json lets pass, would
    mean something else to the next reader."""
    def unique(pairs):
        names = set()
        for name, _ in pairs:
            if name in names:
                raise ValueError(f"{name!r:.60} appears twice")
            names.add(name)
        return dict(pairs)

    def constant(name):
        raise ValueError(f"{name} is no JSON")

    try:   # ValueError: not UTF-8, not JSON, or a number of more digits than Python converts
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as e:
        raise Failure(f"{where}: is not JSON: {e}")
    if not isinstance(value, dict):
        raise Failure(f"{where}: {shown(value)}, expected a JSON object")
    return value


def shown(value):
    """The beginning of a JSON value, for a message."""
    try:
        return f"{json.dumps(value):.60}"
    except RecursionError:
        return "something nested too deeply"


# ---- writing -------------------------------------------------------------------------------------

@contextlib.contextmanager
def atomic_open(path, mode="wb", **options):
    """A file that gets its name only when the block ends without an exception: it is written beside
    it under a name of its own, brought to disk, then renamed. Whoever opens PATH sees the old file
    or the new one, whole. Mode x takes no file and follows no link that is there already."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    f = open(temporary, mode.replace("w", "x"), **options)
    try:
        with naming(path), f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        sync_folder(os.path.dirname(os.path.abspath(path)))
    except BaseException:   # Ctrl-C as well: leave no half-written file behind
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def sync_folder(folder):
    """After a rename, the new name itself is only on disk once its folder is."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def naming(path):
    """A system error from inside that names no file, as a full disk's does not, gets this name."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or path
        raise


# ---- programs ------------------------------------------------------------------------------------

def visible(text):
    """What acts on a terminal instead of being seen (control characters, marks that turn the
    direction of writing) is spelled out, and so are the bytes of a file name that is not UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parser(description):
    p = argparse.ArgumentParser(allow_abbrev=False, description=description,
                                formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(message):
        raise Failure(f"{message} (--help explains all flags)")

    p.error = error
    return p


def run(main):
    """The last line of every script. Errors that a user can mend are one sentence, not a
    traceback. All three ways to ask a program to end let it clean up first."""
    def interrupt(number, frame):
        raise KeyboardInterrupt(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:   # nohup's choice stays
            signal.signal(number, interrupt)
    sys.stdout.reconfigure(errors="backslashreplace")   # what a terminal's encoding lacks
    try:
        main()
    except Failure as failure:
        die(failure)
    except OSError as failure:
        where = failure.filename2 or failure.filename
        die(f"{where}: {failure.strerror}" if where else failure)
    except MemoryError:
        die("not enough memory")
    except KeyboardInterrupt as e:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(128 + e.args[0])


def die(message):
    text = str(message)   # its part from outside may be as long as a file
    sys.exit("error: " + visible(text if len(text) < 4000 else f"{text[:3000]} ... {text[-500:]}"))
