"""download.py - fetch(url, path, sha256): a file from the network, once.

A download that breaks off goes on where it stopped, if it is certain that both parts are of one
file: PATH.part holds what has come, and PATH.part.json its sha256 and the server's ETag, the name
of this version of the file. Whatever does not agree is fetched from the start. Nothing gets its
name before it is whole. If the sha256 is known it must match; if not, prepare.py records it in the
manifest.
"""
import contextlib
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request

from files import Failure, atomic_open, naming, read_object, sha256_file

BLOCK = 1 << 20
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')   # W/"..." names files that are only much the same


def fetch(url, path, sha256=None):
    """Makes sure that path holds the file, and returns path. What is there already is not fetched
    again."""
    if os.path.exists(path):
        check(path, sha256, "delete it to download it again")
        return path
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    part, record = path + ".part", path + ".part.json"
    try:
        download(url, part, record, must_know_end=sha256 is None)
    except urllib.error.HTTPError as e:
        if e.code == 416:   # no such bytes: what has come is no part of this file
            remove(record)
        raise Failure(f"{url}: the server answers {e.code} {e.reason}")
    except (OSError, ValueError, http.client.HTTPException) as e:
        if getattr(e, "filename", None):   # it is not the network, but our own disk
            raise
        raise Failure(f"{url}: cannot be downloaded: {getattr(e, 'reason', e)} (no network? get the"
                      " file elsewhere and pass it with --from or --gpt2-dir; run again to resume)")
    try:
        check(part, sha256, f"{url} has changed, or was damaged on the way; run again")
    except Failure:
        remove(part)   # resuming it could never succeed
        raise
    finally:
        remove(record)
    os.replace(part, path)
    return path


def check(path, sha256, hint):
    found = sha256_file(path)
    if sha256 and found != sha256:
        raise Failure(f"{path}: sha256 {found}, expected {sha256} ({hint})")


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def download(url, part, record, must_know_end):
    """Brings PART to its end."""
    etag = resumable(part, record)
    start = os.path.getsize(part) if etag else 0
    headers = {"User-Agent": "legible"}
    if start:   # If-Range: all of it, please, if the file is another than that with this ETag
        headers.update({"Range": f"bytes={start}-", "If-Range": etag})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        remove(record)   # from here on it is out of date
        start, total = extent(url, reply, start, etag)
        if total is None and not reply.chunked and must_know_end:
            raise Failure(f"{url}: the server says neither how long it is nor where it ends, so"
                          " nobody could tell whether all of it came")
        if start == 0:
            remove(part)
        try:
            with open(part, "ab" if start else "xb") as f:
                for block in iter(lambda: reply.read(BLOCK), b""):
                    with naming(part):
                        f.write(block)
                        f.flush()
                    of = f" of {total / 1e6:.1f}" if total else ""
                    print(f"\r{url}: {f.tell() / 1e6:.1f}{of} MB", end="", file=sys.stderr)
        finally:   # Ctrl-C as well
            print(file=sys.stderr)
            etag = reply.headers.get("ETag", "")
            if STRONG_ETAG.fullmatch(etag):
                with atomic_open(record, "w") as f:
                    json.dump({"etag": etag, "sha256": sha256_file(part)}, f)
    if total is not None and os.path.getsize(part) != total:
        raise Failure(f"{url}: the connection broke after {os.path.getsize(part)} of {total} bytes"
                      " (run again to resume)")


def resumable(part, record):
    """The ETag of the file that PART begins, or None where nothing proves what it is."""
    try:
        known = read_object(record)
        etag = known.get("etag")
        whole = isinstance(etag, str) and STRONG_ETAG.fullmatch(etag)
        return etag if whole and known.get("sha256") == sha256_file(part) else None
    except (Failure, FileNotFoundError):
        return None


def extent(url, reply, start, etag):
    """Where in the file the reply begins, and how long the file is, None where nobody says so."""
    if reply.status == 200:
        length = reply.headers.get("Content-Length")
        return 0, int(length) if length else None
    text = reply.headers.get("Content-Range", "")
    m = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)", text)
    if (reply.status == 206 and m and int(m[1]) == start and int(m[2]) + 1 == int(m[3])
            and reply.headers.get("ETag", etag) == etag):
        return start, int(m[3])
    raise Failure(f"{url}: the server answers {reply.status}, Content-Range {text!r}, when asked"
                  f" for all from byte {start} on (run again to start over)")
