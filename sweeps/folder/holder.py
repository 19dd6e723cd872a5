"""Who holds a study folder, as its lock says it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

NAME = ".lock"


@dataclass(frozen=True)
class Holder:
    """Who holds a study folder; None where its file does not say."""

    host: str | None = None
    pid: int | None = None
    since: datetime | None = None
    command: str | None = None

    @property
    def words(self) -> str:
        """Return who it is and since when, without an end."""
        if self.host is None or self.since is None:
            return "another process, of which nothing is known"
        since = f"{self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"'{self.command}', process {self.pid} on {self.host} since {since}"
