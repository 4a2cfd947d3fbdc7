import argparse
import collections
import sys
import tempfile
import traceback

from tests.conformance import page
from tests.conformance.checks import check
from tests.conformance.matrix import cells
from tests.conformance.run import run


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description="Ask every cell of the matrix and say what failed."
    )
    parser.add_argument("only", nargs="*", help="cells whose id has one of these in it; default: all")
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md, where no cell failed")
    parser.add_argument("--trace", action="store_true", help="show where each failed")
    options = parser.parse_args()
    wanted = [cell for cell in cells() if not options.only or any(part in cell.id for part in options.only)]
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        seen = run(wanted, folder)
    failures = collections.defaultdict(list)
    for cell in wanted:
        try:
            check(seen[cell])
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            words = str(error).splitlines()[0][:200] if str(error) else place.line
            failures[f"{place.name}:{place.lineno} {words}"].append(cell)
            if options.trace:
                traceback.print_exc()
                print(cell.id, seen[cell].answer, seen[cell].rows, seen[cell].bills, sep="\n", file=sys.stderr)
    for reason, failed in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(f"{len(failed):5} {reason}\n      {' '.join(cell.id for cell in failed[:4])}")
    count = sum(map(len, failures.values()))
    if options.write and not count and not options.only:
        page.write(wanted)
    print(f"{len(wanted) - count} of {len(wanted)} cells are as they must be.")
    return bool(count)


if __name__ == "__main__":
    sys.exit(main())
