"""files.py - what files.h is to the C++ programs: how to fail, and how to write a file so that a
crash never leaves half of it.

    raise Failure("corpus.txt: byte 17: not UTF-8 (convert it first: iconv -f latin1 -t utf-8)")
    with atomic_open("out.bin") as f: ...   the file appears complete, or not at all
    run(main)                               main(); a Failure becomes one line and exit code 1
"""
import contextlib
import hashlib
import os
import sys


class Failure(Exception):
    """Something that the user can mend. The message names the file, what was found, what was
    expected."""


@contextlib.contextmanager
def atomic_open(path, mode="wb", **options):
    """A file that gets its name only when the block ends without an exception: it is written as
    PATH.tmp, brought to disk, then renamed. Whoever opens PATH sees the old file or the new one,
    whole."""
    temporary = str(path) + ".tmp"
    try:
        with open(temporary, mode, **options) as f:
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


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def run(main):
    """The last line of every script. Errors that a user can mend are one sentence, not a
    traceback."""
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except OSError as failure:
        where = f"{failure.filename}: " if failure.filename else ""
        sys.exit(f"error: {where}{failure.strerror or failure}")
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was changed", file=sys.stderr)
        sys.exit(130)
