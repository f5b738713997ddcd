"""check.py - what the test scripts share: counting, and running the tests that are asked for."""
import sys
import time

counts = {True: 0, False: 0}


def check(ok, what):
    counts[bool(ok)] += 1
    if not ok:
        print("FAIL:", what)
    return bool(ok)


def run_tests(tests, run=lambda test: test()):
    """Runs the tests whose name contains one of the words on the command line, or all of them. The
    last line counts the checks, and the result is the exit code."""
    words = sys.argv[1:]
    chosen = [test for test in tests if not words or any(word in test.__name__ for word in words)]
    if not chosen:
        sys.exit(f"no test's name contains {' or '.join(words)}")
    for test in chosen:
        begin, failed = time.monotonic(), counts[False]
        run(test)
        failed = counts[False] - failed
        print(f"{test.__name__:<24}{time.monotonic() - begin:6.1f} s"
              + (f"   {failed} failed" if failed else ""), flush=True)
    print(f"{counts[True]} passed, {counts[False]} failed")
    return 1 if counts[False] else 0
