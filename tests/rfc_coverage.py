"""Which sections of which standards are obeyed (cited in the code) and tried (cited in a test or a transcript).

python -m tests.rfc_coverage [--sections] [--json]
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
CODE = ("node", "protocols", "storage", "cluster")
RFC = re.compile(r"RFC\s?(\d{3,5})((?:[ ,]*(?:and |or )?§+\s?[\d.]+(?:[–-][\d.]+)?)*)")
SECTION = re.compile(r"§+\s?([\d.]+)")

Cited = dict[int, set[str]]


def citations(text: str) -> Cited:
    """RFC → sections; "" where it is cited as a whole."""
    found: Cited = defaultdict(set)
    for number, sections in RFC.findall(text):
        found[int(number)].update({s.rstrip(".") for s in SECTION.findall(sections)} or {""})
    return found


def cited_in(folders: tuple[str, ...], endings: tuple[str, ...]) -> Cited:
    found: Cited = defaultdict(set)
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in endings and path.is_file():
                for number, sections in citations(path.read_text(encoding="utf-8", errors="replace")).items():
                    found[number] |= sections
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sections", action="store_true", help="name the sections that are obeyed but not cited by a test"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    obeyed, tried = cited_in(CODE, (".py", ".sql")), cited_in(("tests",), (".py", ".txt"))
    rows = [
        (number, sorted(obeyed[number] - {""}), sorted((obeyed[number] & tried.get(number, set())) - {""}))
        for number in sorted(obeyed)
    ]
    if options.json:
        print(json.dumps({number: {"obeyed": code, "tried": both} for number, code, both in rows}))
        return
    table = Table("RFC", "sections obeyed", "of these cited by tests", title="Standards, by their citations")
    for number, code, both in rows:
        missing = [section for section in code if section not in both]
        shown = f"{len(both)}" + (f"  (not: {', '.join(missing)})" if options.sections and missing else "")
        table.add_row(str(number), str(len(code)), shown)
    total = sum(len(code) for _, code, _ in rows)
    table.add_row("all", str(total), str(sum(len(both) for _, _, both in rows)))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
