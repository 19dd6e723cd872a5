"""Ray's Jobs API: the only file that speaks it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray.job_submission import JobSubmissionClient

from sweeps.mistakes import Refused
from sweeps.remote.address import VARIABLES, Address
from sweeps.remote.refusals import sentence

ANSWER = (5.0, 10.0)  # seconds to connect, and to answer
UPLOAD = (5.0, 300.0)
PATIENCE = 30.0  # seconds for what answers to show itself as a dashboard
AGENT = 120.0  # seconds for a head that has just started to take jobs
NO_AGENT = "No available agent"  # what it says until then
TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
JOB = re.compile(r"[\w-][\w.-]*")
MARK = "seedsweep"  # our jobs carry it in their metadata, with our version
STATUS = re.compile(r"status code (\d+)")
OVER = ("STOPPED", "SUCCEEDED", "FAILED")
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What a cluster says of one of our jobs; times in seconds since 1970."""

    id: str
    status: str
    study: str
    owner: str
    out: str
    version: str
    started: float | None
    ended: float | None
    exit_code: int | None
    message: str

    @property
    def over(self) -> bool:
        """Tell whether it has ended."""
        return self.status in OVER


class _Client(JobSubmissionClient):
    """Ray's own, which waits for ever and follows wherever it is sent."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
        limits = ANSWER if method == "GET" else UPLOAD
        more = {"timeout": limits, "allow_redirects": False, **more}
        return super()._do_request(method, endpoint, **more)


class Cluster:
    """A cluster's jobs."""

    def __init__(self, address: Address) -> None:
        """Connect; Refused where no dashboard answers, or it does not take our token."""
        self.address = address
        self._client = self._connected()

    def submit(
        self,
        job: str,
        entrypoint: str,
        package: Path,
        about: Mapping[str, str],
        variables: Mapping[str, str],
    ) -> None:
        """Start a job in an unpacked package; where it starts already, that is it."""
        runtime = {"working_dir": str(package), "env_vars": dict(variables)}
        deadline = time.monotonic() + AGENT
        while True:
            with self._refusing():
                try:
                    self._client.submit_job(
                        submission_id=job,
                        entrypoint=entrypoint,
                        runtime_env=runtime,
                        metadata=dict(about),
                    )
                except RuntimeError as failure:
                    if "already exists" in str(failure):
                        return
                    if NO_AGENT not in str(failure) or time.monotonic() > deadline:
                        raise Refused([self._unable(failure)]) from None
                else:
                    return
            time.sleep(1)

    def jobs(self) -> list[Job]:
        """Return our jobs, the newest first."""
        with self._refusing():
            found = [_job(one) for one in self._client.list_jobs()]
        return sorted((one for one in found if one), key=lambda one: -(one.started or 0))

    def job(self, name: str) -> Job:
        """Return one of our jobs; Refused where there is none of that name."""
        details = self._asked(name, self._client.get_job_info)
        found = _job(details)
        if found is None:
            raise Refused([f"{name}: a job of {self.address.url}, and not one of seedsweep's"])
        return found

    def logs(self, name: str) -> str:
        """Return what a job has printed so far."""
        return self._asked(name, self._client.get_job_logs)

    def stop(self, name: str) -> None:
        """Ask a job to end; it takes its time."""
        self._asked(name, self._client.stop_job)

    def _asked(self, name: str, question: Callable[[str], T]) -> T:
        unknown = f"{name}: no such job at {self.address.url}; see: sweeps jobs"
        if not JOB.fullmatch(name):
            raise Refused([unknown])
        with self._refusing():
            try:
                return question(name)
            except RuntimeError as failure:
                status = STATUS.search(str(failure))
                if status and status[1] == "404":
                    raise Refused([unknown]) from None
                raise Refused([self._unable(failure)]) from None

    def _unable(self, failure: RuntimeError) -> str:
        """Quote the dashboard's own last line."""
        lines = str(failure).strip().rstrip(".").splitlines() or ["no reason"]
        return f"{self.address.url}: the cluster could not do it: {lines[-1][:300]}"

    def _connected(self) -> JobSubmissionClient:
        """Connect in a thread: what drips a letter now and then would hold us for ever."""
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        said: list[JobSubmissionClient | BaseException] = []

        def connect() -> None:
            try:
                with _nothing_overrides():
                    said.append(_Client(self.address.url, headers=self.address.headers))
            except BaseException as failure:  # noqa: BLE001 - said below
                said.append(failure)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        found = said[0] if said else TimeoutError()
        if isinstance(found, BaseException):
            raise Refused([sentence(self.address, found)]) from None
        return found

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (Refused, KeyboardInterrupt):
            raise
        except Exception as failure:  # noqa: BLE001 - many libraries' own
            raise Refused([sentence(self.address, failure)]) from None


@contextlib.contextmanager
def _nothing_overrides() -> Iterator[None]:
    """Hide the variables that Ray prefers to the address that it is given."""
    hidden = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _job(details: Any) -> Job | None:
    about = details.metadata or {}
    if MARK not in about or not details.submission_id:
        return None
    return Job(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        study=about.get("study", ""),
        owner=about.get("owner", ""),
        out=about.get("out", ""),
        version=about[MARK],
        started=_seconds(details.start_time),
        ended=_seconds(details.end_time),
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if not milliseconds else milliseconds / 1000
