"""Dates of mail: RFC 5322 §3.3 read leniently, INTERNALDATE (RFC 9051 §9, date-time) read strictly, both written.

A date is (Unix seconds, zone in minutes east of UTC).
"""

from __future__ import annotations

import re
from datetime import date

YEAR_MIN = 1970
YEAR_MAX = 2100
ZONE_MINUTES_MAX = 24 * 60 - 1
DATE_CHARS_MAX = 256  # of a Date header that are looked at

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EPOCH_DAY = date(1970, 1, 1).toordinal()

# RFC 5322 §4.3: the names that zones had. Military letters are all taken for "-0000", as told there.
_ZONES = {"UT": 0, "GMT": 0, "UTC": 0, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420, "MDT": -360}
_ZONES |= {"PST": -480, "PDT": -420, "CET": 60, "CEST": 120, "BST": 60, "MET": 60, "MEST": 120, "JST": 540}

_NAME = "(" + "|".join(_MONTHS) + ")[a-z]*"
_DAY_FIRST = re.compile(
    rf"(\d{{1,2}})[\s-]+{_NAME}[.,\s-]+(\d{{2,4}})"
    r"(?:[,\sT]+(\d{1,2})\s*[:.]\s*(\d{1,2})(?:\s*[:.]\s*(\d{1,2}))?(?:[.,]\d+)?\s*([+-]\s?\d{1,2}:?\d{2}|[A-Za-z]+)?)?",
    re.ASCII | re.IGNORECASE,
)
_MONTH_FIRST = re.compile(  # asctime, as old agents wrote it
    _NAME + r"\s+(\d{1,2})\s+(\d{1,2}):(\d{2})(?::(\d{2}))?\s+([+-]\d{4}|[A-Za-z]{2,4})?\s*(\d{4})",
    re.ASCII | re.IGNORECASE,
)
_YEAR_FIRST = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[T\s]+(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\.\d+)?\s*([+-]\d{2}:?\d{2}|[A-Za-z]+)?",
    re.ASCII,
)
_COMMENT = re.compile(r"\([^()]*\)")
_INTERNAL = re.compile(r"( \d|\d\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)", re.ASCII)


def parse_date(value: str | bytes) -> tuple[int, int] | None:
    """Read the value of a Date header. `None` when no date of the years 1970 to 2100 can be made of it."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    text = text[:DATE_CHARS_MAX]
    if "(" in text:
        text = _COMMENT.sub(" ", text)
    if found := _DAY_FIRST.search(text):
        day, name, year, hour, minute, second, zone = found.groups()
        return _date(_year(year), _MONTH.get(name.lower(), 0), int(day), (hour, minute, second), zone)
    if found := _YEAR_FIRST.search(text):
        year, month, day, hour, minute, second, zone = found.groups()
        return _date(int(year), int(month), int(day), (hour, minute, second), zone)
    if found := _MONTH_FIRST.search(text):
        name, day, hour, minute, second, zone, year = found.groups()
        return _date(int(year), _MONTH.get(name.lower(), 0), int(day), (hour, minute, second), zone)
    return None


def _year(digits: str) -> int:
    year = int(digits)
    if len(digits) == 2:  # RFC 5322 §4.3: 00 to 49 are of this century, other short years of the last one
        return year + 2000 if year < 50 else year + 1900
    return year + 1900 if len(digits) == 3 else year


def _date(year: int, month: int, day: int, time: tuple[str | None, ...], zone: str | None) -> tuple[int, int] | None:
    hour, minute, second = (int(part or 0) for part in time)
    if not YEAR_MIN <= year <= YEAR_MAX:
        return None
    minutes = _zone_minutes(zone or "")
    seconds = _seconds(year, month, day, hour, minute, second)
    return None if seconds is None else (seconds - minutes * 60, minutes)


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    return days * 86_400 + hour * 3_600 + minute * 60 + min(second, 59)  # a leap second is the second before it


def _zone_minutes(zone: str) -> int:
    if zone[:1] not in ("+", "-") or zone == "":
        return _ZONES.get(zone.upper(), 0)
    digits = zone[1:].replace(":", "").strip()
    minutes = int(digits[:-2]) * 60 + int(digits[-2:])
    if minutes > ZONE_MINUTES_MAX:
        return 0
    return -minutes if zone[0] == "-" else minutes


def format_date(seconds: int, zone_minutes: int = 0) -> str:
    """Write a date-time of RFC 5322 §3.3, e.g. ``Wed, 17 Jul 1996 02:44:25 -0700``. The year must be 1 to 9999."""
    moment, clock, zone = _local(seconds, zone_minutes)
    name = _MONTHS[moment.month - 1]
    return f"{_DAYS[moment.weekday()]}, {moment.day:02} {name} {moment.year:04} {clock} {zone}"


def format_internaldate(seconds: int, zone_minutes: int = 0) -> str:
    """Write a date-time of RFC 9051 §9 without its quotes, e.g. ``17-Jul-1996 02:44:25 -0700``."""
    moment, clock, zone = _local(seconds, zone_minutes)
    return f"{moment.day:2}-{_MONTHS[moment.month - 1]}-{moment.year:04} {clock} {zone}"  # date-day-fixed: SP DIGIT


def _local(seconds: int, zone_minutes: int) -> tuple[date, str, str]:
    days, rest = divmod(seconds + zone_minutes * 60, 86_400)
    hours, minutes = divmod(abs(zone_minutes), 60)
    sign = "-" if zone_minutes < 0 else "+"
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return date.fromordinal(days + _EPOCH_DAY), clock, f"{sign}{hours:02}{minutes:02}"


def parse_internaldate(value: str | bytes) -> tuple[int, int] | None:
    """Read a date-time of RFC 9051 §9 without its quotes; `None` for anything that is not one."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    found = _INTERNAL.fullmatch(text)
    if found is None:
        return None
    day, name, year, hour, minute, second, sign, zone_hour, zone_minute = found.groups()
    zone = int(zone_hour) * 60 + int(zone_minute)
    if int(zone_minute) > 59 or zone > ZONE_MINUTES_MAX or int(year) < 1:
        return None
    seconds = _seconds(int(year), _MONTH.get(name.lower(), 0), int(day), int(hour), int(minute), int(second))
    if seconds is None:
        return None
    minutes = -zone if sign == "-" else zone
    return seconds - minutes * 60, minutes
