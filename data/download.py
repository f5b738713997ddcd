"""download.py - fetch(url, path, sha256): a file from the network, once.

A download that breaks off is resumed where it stopped, and nothing gets its name before it is
whole. If the sha256 is known it must match; if not, prepare.py records it in the manifest.
"""
import os
import sys
import urllib.error
import urllib.request

from files import Failure, sha256_file

BLOCK = 1 << 20


def fetch(url, path, sha256=None):
    """Makes sure that path holds the file, and returns path. What is there already is not fetched
    again."""
    if os.path.exists(path):
        check(path, sha256, "delete it to download it again")
        return path
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    part = path + ".part"
    download(url, part)
    try:
        check(part, sha256, f"{url} has changed, or was damaged on the way; run again")
    except Failure:
        os.remove(part)   # resuming it could never succeed
        raise
    os.replace(part, path)
    return path


def check(path, sha256, hint):
    found = sha256_file(path)
    if sha256 and found != sha256:
        raise Failure(f"{path}: sha256 {found}, expected {sha256} ({hint})")


def download(url, part):
    start = os.path.getsize(part) if os.path.exists(part) else 0
    headers = {"User-Agent": "legible", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            if reply.status != 206:   # the server sends it from the beginning
                start = 0
            length = reply.headers.get("Content-Length")
            total = start + int(length) if length else None
            with open(part, "r+b" if start else "wb") as f:
                f.seek(start)
                for block in iter(lambda: reply.read(BLOCK), b""):
                    f.write(block)
                    of = f" of {total / 1e6:.1f}" if total else ""
                    print(f"\r{url}: {f.tell() / 1e6:.1f}{of} MB", end="", file=sys.stderr)
        print(file=sys.stderr)
    except urllib.error.HTTPError as e:
        if e.code == 416 and start:   # asked for bytes past its end: the part has them all
            return
        raise Failure(f"{url}: the server answers {e.code} {e.reason}")
    except (OSError, ValueError) as e:
        raise Failure(f"{url}: cannot be downloaded: {getattr(e, 'reason', e)} (no network? get the"
                      " file elsewhere and pass it with --from or --gpt2-dir; run again to resume)")
    if total is not None and os.path.getsize(part) != total:
        raise Failure(f"{url}: the connection broke after {os.path.getsize(part)} of {total} bytes"
                      " (run again to resume)")
