"""Many accounts from a CSV (RFC 4180): header `address,name,password[,admin]` in any order; what failed is told line by
line and stops nothing else.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import msgspec

from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from protocols.admin.commands.accounts import make
from protocols.admin.door import Call, Door
from protocols.admin.errors import Fault, of_fault, of_invalid, of_refusal
from protocols.admin.model import Finished, Imported, ImportLine, NewAccount, Problem
from protocols.admin.port import Progress
from storage.credentials import CredentialsBusy

AT_ONCE_MAX = 16
ROWS_MAX = 100_000
COLUMNS_NEEDED = ("address", "name", "password")
COLUMNS = (*COLUMNS_NEEDED, "admin")
YES, NO = ("1", "true", "yes"), ("", "0", "false", "no")


class Row(NamedTuple):
    """One line of the file; `fault` empty where `new` is there."""

    line: int
    address: str
    new: NewAccount | None
    fault: Problem | None


async def accounts(door: Door, call: Call) -> AsyncIterator[ImportLine]:
    try:
        rows = list(parse(call.body))
    except csv.Error as error:
        yield of_fault(Fault.MALFORMED, f"not a CSV: {error}")
        return
    if rows and rows[0].line == 1 and rows[0].fault:
        yield rows[0].fault
        return
    failed = 0
    yield Progress("import", 0, len(rows), "accounts")
    for start in range(0, len(rows), AT_ONCE_MAX):
        batch = rows[start : start + AT_ONCE_MAX]
        outcomes = await asyncio.gather(*(_one(door, call.actor, row) for row in batch))
        for outcome in outcomes:
            failed += outcome.problem is not None
            yield outcome
        yield Progress("import", start + len(batch), len(rows), "accounts")
    yield Finished(f"{len(rows) - failed} accounts added, {failed} lines failed")


def parse(text: str) -> Iterator[Row]:
    """The rows, or one row of line 1 that tells what is wrong with the whole. Raises csv.Error."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    header = [column.strip().lower() for column in next(reader, [])]
    wrong = [column for column in header if column not in COLUMNS] or [c for c in COLUMNS_NEEDED if c not in header]
    if wrong or len(set(header)) < len(header):
        look = ", ".join(wrong) or "its repeated names"
        yield _refused(1, "", f"the first line must be {','.join(COLUMNS_NEEDED)}[,admin]; look at {look}")
        return
    line, count = reader.line_num + 1, 0
    for cells in reader:
        if any(cell.strip() for cell in cells):
            count += 1
            if count > ROWS_MAX:
                yield _refused(line, "", f"more than {ROWS_MAX} lines: split the file")
                return
            yield _row(line, header, cells)
        line = reader.line_num + 1


def _row(line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return _refused(line, cells[0].strip(), f"{len(cells)} columns where the first line names {len(header)}")
    named = dict(zip(header, cells, strict=True))
    address, admin = named["address"].strip(), named.get("admin", "").strip().lower()
    if admin not in YES + NO:
        return _refused(line, address, f"admin must be yes or no, not {admin!r}")
    if not named["password"]:
        return _refused(line, address, "no password")
    fields = {"address": address, "name": named["name"].strip(), "password": named["password"], "administrator": admin in YES}
    try:
        return Row(line, address, msgspec.convert(fields, NewAccount), None)
    except msgspec.ValidationError as error:
        return Row(line, address, None, of_invalid(error))


def _refused(line: int, address: str, why: str) -> Row:
    return Row(line, address, None, of_fault(Fault.MALFORMED, why))


async def _one(door: Door, actor: Actor, row: Row) -> Imported:
    if row.new is None:
        return Imported(row.line, row.address, row.fault)
    try:
        refusal = await make(door, actor, row.new)
    except CredentialsBusy as error:
        refusal = Refusal(Reason.UNAVAILABLE, f"{error}: import this line again")
    done = refusal is None or refusal.reason is Reason.NOT_SHOWN_YET
    return Imported(row.line, row.address, None if refusal is None or done else of_refusal(refusal))
