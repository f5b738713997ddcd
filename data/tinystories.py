#!/usr/bin/env python3
"""tinystories.py - two million short stories (Eldan and Li 2023), downloaded and made into shards.

    tinystories.py [--out DIR] [--from FILE [VAL]] [any other flag of prepare.py]

The download is 2.2 GB. Its sha256 is recorded in the manifest.
"""
import os
import sys

import download
import prepare
from files import Failure, parser, run

URL = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"
FILES = ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt")


def main(argv=None):
    p = parser(__doc__)
    p.add_argument("--out", default="data/tinystories", metavar="DIR", help="default: %(default)s")
    p.add_argument("--from", dest="source", nargs="+", metavar="FILE",
                   help="stories to train on and, second, to validate on; download nothing")
    a, others = p.parse_known_args(sys.argv[1:] if argv is None else argv)
    if a.source and len(a.source) > 2:
        raise Failure(f"--from: {len(a.source)} files, expected one or two")
    train, *val = a.source or [os.path.join(a.out, name) for name in FILES]
    flags = [train, *(["--val", *val] if val else []), "--out", a.out,
             "--licence", "CDLA-Sharing-1.0", *others]
    prepare.arguments(flags)   # a wrong flag is better found before the download than after
    if not a.source:
        for name in FILES:
            download.fetch(URL + name, os.path.join(a.out, name))
    prepare.main(flags)


if __name__ == "__main__":
    run(main)
