#!/usr/bin/env python3
"""test_corpora.py - where texts come from: downloads, and the scripts that know a corpus.

The downloads' server is in this file; no network is used.
"""
import contextlib
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tempfile
import threading

from check import check, run_tests
from test_data import DATA, Prepared, check_equal, in_a_folder, read, refused, write
import download   # noqa: E402, which test_data has made known


# ---- download.py ---------------------------------------------------------------------------------

class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, from where it is asked to if it still has the ETag that is asked for. What the
    path says goes wrong."""
    CONTENT = bytes(range(256)) * 1000
    etag = '"1"'
    asked = []

    def do_GET(self):
        start, known = self.headers.get("Range"), self.headers.get("If-Range")
        Server.asked.append((start, known))
        content, how = Server.CONTENT, self.path[1:]
        if how == "missing":
            self.send_response(404, "\x1b[2Jgone")
            self.end_headers()
            return
        at = int(start[len("bytes="):-1]) if start and (known == self.etag or how == "rude") else 0
        if at >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if at else 200)
        if at:
            first = at - 1 if how == "shifted" else at
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if how != "nameless":
            self.send_header("ETag", self.etag)
        if how == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif how == "digits":
            self.send_header("Content-Length", "1" * 5000)
        elif how != "endless":
            self.send_header("Content-Length", str(len(content) - at))
        self.end_headers()
        half = how in ("broken", "chunked", "endless", "nameless")
        content = content[at:len(content) // 2 if half else len(content)]
        self.wfile.write(b"%x\r\n" % len(content) * (how == "chunked") + content)

    def log_message(self, *_):
        pass


def test_download(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    half = len(Server.CONTENT) // 2
    sha256 = hashlib.sha256(Server.CONTENT).hexdigest()
    path = os.path.join(folder, "new", "file")
    part, record = path + ".part", path + ".part.json"

    def fetched(want, how, sha256, what):
        """The next request asks for `want`, and the file is whole afterwards."""
        Server.asked.clear()
        download.fetch(url + how, path, sha256)
        check_equal(Server.asked, [want], f"{what}: what is asked for")
        check(read(path) == Server.CONTENT, f"{what}: another file")
        check_equal(os.listdir(os.path.dirname(path)), ["file"], f"{what}: what is left")
        os.remove(path)

    from_start, from_half = (None, None), (f"bytes={half}-", '"1"')
    with contextlib.redirect_stderr(io.StringIO()):
        for known in (sha256, None):
            def broken(how="broken"):
                refused([url, "resume"], download.fetch, url + how, path, known)
                check(not os.path.exists(path), "half a download has no name")

            broken()
            fetched(from_half, "whole", known, "in two parts")
            broken("chunked")   # no length, and the chunk never ends: it counts for nothing
            fetched(from_start, "whole", known, "after a chunk that broke off")
            broken()
            write(part, read(part)[:-1] + b"!")
            fetched(from_start, "whole", known, "a damaged part")
            broken()
            write(part, read(part) * 3)
            fetched(from_start, "whole", known, "a part that is too long")
            broken()
            os.remove(record)
            fetched(from_start, "whole", known, "a part of which nothing is known")
            broken()
            write(record, "{")
            fetched(from_start, "whole", known, "a damaged record")
            broken("nameless")
            fetched(from_start, "whole", known, "a server without ETags")
            broken()
            victim = write(os.path.join(folder, "victim"), "mine")
            os.remove(part)
            os.symlink(victim, part)
            fetched(from_start, "whole", known, "a link in the part's place")
            check_equal(read(victim), b"mine", "what a link in the part's place names")
            broken()
            Server.etag, Server.CONTENT = '"2"', Server.CONTENT[::-1]
            fetched(from_half, "whole", known and hashlib.sha256(Server.CONTENT).hexdigest(),
                    "a file that has changed")
            Server.etag, Server.CONTENT = '"1"', Server.CONTENT[::-1]
            broken()
            Server.etag = '"2"'
            refused([url, "206", "start over"], download.fetch, url + "rude", path, known)
            Server.etag = '"1"'
            fetched(from_start, "whole", known, "a server that ignores If-Range")
            broken()
            refused([url, "206", "start over"], download.fetch, url + "shifted", path, known)
            fetched(from_start, "whole", known, "bytes from another place")
            broken()
            Server.CONTENT = Server.CONTENT[:half]
            refused([url, "416"], download.fetch, url + "whole", path, known)
            Server.CONTENT = bytes(range(256)) * 1000
            fetched(from_start, "whole", known, "a file that became shorter")
            refused([url, "digits"], download.fetch, url + "digits", path, known)
        refused([url, "how long"], download.fetch, url + "endless", path)
        refused([url, "sha256"], download.fetch, url + "endless", path, sha256)
        Server.CONTENT, content = Server.CONTENT * 2, Server.CONTENT   # of which it sends the half
        download.fetch(url + "endless", path, sha256)
        check(read(path) == content, "without a length, but with a sha256")
        Server.CONTENT = content
        Server.asked.clear()
        download.fetch(url + "whole", path, sha256)
        check_equal(Server.asked, [], "what is there is not downloaded again")
        refused([path, "sha256"], download.fetch, url, path, "0" * 64)
        os.remove(path)
        refused(["sha256", url], download.fetch, url, path, "0" * 64)
        check_equal(os.listdir(os.path.dirname(path)), [], "a wrong download is not kept")
        refused([url, "404"], download.fetch, url + "missing", path)
        server.shutdown()
        server.server_close()
        refused([url, "no network", "--from"], download.fetch, url, path)


def test_corpora(folder):
    """The two corpora's scripts on files that are here, and the words when they are not."""
    stories = write(os.path.join(folder, "s.json"), json.dumps(["Once upon", "a time", "the end"]))
    out = os.path.join(folder, "out")
    scripts = [os.path.join(DATA, name) for name in ("tinystories.py", "tinyshakespeare.py")]
    command = [sys.executable, scripts[0], "--from", stories, "--out", out, "--tokenizer", "bytes"]
    p = subprocess.run(command, capture_output=True)
    check(p.returncode == 0, f"tinystories.py: {p.stderr.decode()}")
    check_equal(Prepared(out).manifest["licence"], "CDLA-Sharing-1.0", "licence of TinyStories")
    for script in scripts:
        p = subprocess.run([sys.executable, script, "--unknown"], capture_output=True)
        check(p.returncode != 0 and b"--unknown" in p.stderr, "an unknown flag, before a download")
    command = [sys.executable, scripts[1], "--from", stories, "--out", out]
    p = subprocess.run(command, capture_output=True)
    check(p.returncode == 1 and b"sha256" in p.stderr, "another file than tinyshakespeare's")


def test_tales(folder):
    """Equal seeds give equal bytes, and no other file is replaced."""
    def tales(out, seed, code=0):
        command = [sys.executable, os.path.join(DATA, "tales.py"), "--seed", str(seed), "--out",
                   os.path.join(folder, out), "--train-bytes", "9000", "--val-bytes", "3000"]
        p = subprocess.run(command, capture_output=True, text=True)
        check_equal(p.returncode, code, f"tales.py: {p.stderr}")
        return p.stderr

    path = {name: os.path.join(folder, "a", name) for name in ("train.txt", "val.txt")}
    tales("a", 1)
    tales("b", 1)
    made = {name: read(path[name]) for name in path}
    for name, least in (("train.txt", 9000), ("val.txt", 3000)):
        check(least <= len(made[name]) < least + 3000, f"{len(made[name])} bytes of {name}")
        check_equal(read(os.path.join(folder, "b", name)), made[name], f"{name}, of equal seeds")
    both = [set(content.split(b"<|endoftext|>\n")) for content in made.values()]
    check(all(both) and not both[0] & both[1], "tales of train.txt in val.txt")
    for name in path:
        os.remove(path[name])
        tales("a", 1)   # the other one is there, and as it would be
        check_equal(read(path[name]), made[name], f"{name}, written again")
        write(path[name], "mine")
        check(f"{path[name]}: is there" in tales("a", 1, 1), f"{name}: not named")
        check_equal(read(path[name]), b"mine", f"a user's own {name}")
        write(path[name], made[name])
    tales("a", 2, 1)
    check_equal({name: read(path[name]) for name in path}, made, "the tales of another seed")
    check_equal(sorted(os.listdir(os.path.join(folder, "a"))), sorted(path), "what is left")


def main():
    os.fsync = lambda fd: None   # as in test_data.py
    return run_tests([test_download, test_corpora, test_tales], in_a_folder)


if __name__ == "__main__":
    sys.exit(main())
