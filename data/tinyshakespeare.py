#!/usr/bin/env python3
"""tinyshakespeare.py - a million characters of Shakespeare, downloaded and made into shards.

    tinyshakespeare.py [--out DIR] [--from FILE] [any other flag of prepare.py, such as --tokenizer]
"""
import os
import sys

import download
import prepare
from files import parser, run

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def main(argv=None):
    p = parser(__doc__)
    p.add_argument("--out", default="data/tinyshakespeare", metavar="DIR",
                   help="default: %(default)s")
    p.add_argument("--from", dest="source", metavar="FILE", help="use this file, download nothing")
    a, others = p.parse_known_args(sys.argv[1:] if argv is None else argv)
    path = a.source or os.path.join(a.out, "tinyshakespeare.txt")
    flags = [path, "--out", a.out, "--licence", "public domain", *others]
    prepare.arguments(flags)   # a wrong flag is better found before the download than after
    if a.source:
        download.check(path, SHA256, f"not the file of {URL}; for another text use prepare.py")
    else:
        download.fetch(URL, path, SHA256)
    prepare.main(flags)


if __name__ == "__main__":
    run(main)
