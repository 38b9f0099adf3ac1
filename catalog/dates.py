"""Days and moments as catalogues keep them: texts of ISO 8601 in one form, and the times that they mean."""

import re
from datetime import date, datetime, timedelta, timezone
from typing import Any

DAY = "YYYY-MM-DD"
LAST_DAY = datetime(9999, 12, 30, tzinfo=timezone.utc)  # after which Python has no other
# What Parquet, databases and `data.values` write; a fraction of nanoseconds is more than Python's own reader takes.
WRITTEN = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?\s*(Z|[+-]\d\d:?\d\d)?)?", re.IGNORECASE | re.ASCII
)


def read_date(value: Any) -> str | None:
    """A day as "2026-01-31" or a moment as "2026-01-31T08:00:00", perhaps with "+02:00"; None for anything else.

    Args:
        value: a text of ISO 8601, a date or a datetime.
    """
    if isinstance(value, date):
        value = value.isoformat()
    found = WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    day, minutes, seconds, fraction, zone = found.groups()
    zone = "+00:00" if zone in ("Z", "z") else f"{zone[:3]}:{zone[-2:]}" if zone else ""
    try:
        if minutes is None:
            return date.fromisoformat(day).isoformat()
        micros = (fraction or "")[1:7].ljust(6, "0")
        return datetime.fromisoformat(f"{day}T{minutes}{seconds or ':00'}.{micros}{zone}").isoformat()
    except ValueError:  # the 31st of February
        return None


def is_day(text: str) -> bool:
    """Whether what [`read_date`] returned is a day, and no moment."""
    return len(text) == len(DAY)


def to_moment(text: str) -> datetime:
    """The moment of what [`read_date`] returned: of a day, its beginning. Without a time zone it is UTC's."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def day_after(text: str) -> datetime:
    """The moment that a day ends."""
    return min(to_moment(text), LAST_DAY) + timedelta(days=1)
