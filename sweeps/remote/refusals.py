"""What goes wrong with a cluster's dashboard, in one sentence and without a secret."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from sweeps.remote.address import EXPECTED, Address

FIX = "set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's"


def sentence(address: Address, failure: BaseException) -> str:
    """Say what happened, where, and the likely fix."""
    return f"{address.url}: {_what(address, failure)}"


def _what(address: Address, failure: BaseException) -> str:
    chain = list(_chain(failure))
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    if "AuthenticationError" in names:
        if address.token is None:
            return f"the cluster wants a token; {FIX}"
        return f"the cluster does not take the token of {address.source}; give its own"
    if "SSLError" in names:
        reasons = [str(one.verify_message) for one in chain if hasattr(one, "verify_message")]
        why = f": {reasons[0]}" if reasons else ""
        return f"its certificate is not trusted{why}; name its authority's in REQUESTS_CA_BUNDLE"
    if "ReadTimeout" in names or isinstance(failure, TimeoutError):
        return f"what listens there does not answer; {EXPECTED}"
    return _silence(chain, names) or f"what answers there is no Ray dashboard; {EXPECTED}"


def _silence(chain: list[BaseException], names: set[str]) -> str | None:
    """Say that nothing answers; None where something did, and was no dashboard."""
    spoke = (ConnectionResetError, BrokenPipeError, http.client.HTTPException)
    if "ConnectionError" not in names or any(isinstance(one, spoke) for one in chain):
        return None
    reasons = [one.strerror for one in chain if isinstance(one, OSError) and one.strerror]
    why = "timed out" if "ConnectTimeout" in names else reasons[-1] if reasons else ""
    said = f"nothing answers there{why and f': {why}'}"
    return f"{said}; correct the address, or start the cluster"


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """Return an exception with all that it came from: libraries also wrap them as arguments."""
    waiting, seen = [failure], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting += [item for item in inner if isinstance(item, BaseException)]
