"""What goes wrong with a tracking server, in one sentence and without a secret."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

# What MLflow says (the first that fits), and what we say.
PROBLEMS = (
    (
        "unsupported URI",
        "is no address that MLflow knows: expected http(s)://, postgresql://, mysql:// or sqlite:///",
    ),
    ("maintenance mode", "is a folder of files, which MLflow no longer writes: use sqlite:///FILE"),
    ("Invalid Host header", "does not know its own name: start it with --allowed-hosts"),
    (
        "error code 40[13]|UNAUTHENTICATED|PERMISSION_DENIED|password authentication|access denied",
        "refused the user name or password: correct MLFLOW_TRACKING_USERNAME and _PASSWORD",
    ),
    ("database is locked", "is locked by another program: wait for it, or end it"),
    ("database schema|locate revision", "is of another version: see 'mlflow db upgrade'"),
    ("too many 50[0-9] error", "answers every request with an error: its log tells which"),
    (
        "failed with exception|connection refused|could not connect|timed out",
        "does not answer: start it, or correct MLFLOW_TRACKING_URI",
    ),
)


def without_credentials(uri: str) -> str:
    """Return an address without user, password and query; `…` where it cannot be told apart."""
    scheme, mark, rest = uri.rpartition("://") if uri.count("://") == 1 else ("", "", uri)
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    if authority and "@" in path + query:
        return f"{scheme}{mark}…"
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


def sentence(uri: str, failure: Exception) -> str:
    """Say what happened and where, without a secret."""
    said, where = str(failure), without_credentials(uri)
    known = (words for pattern, words in PROBLEMS if re.search(pattern, said, re.IGNORECASE))
    what = next(known, None) or f"failed ({type(failure).__name__}: {scrubbed(said, uri)})"
    return f"MLflow at {where} {what}"


def scrubbed(text: str, uri: str) -> str:
    """Return the first line of a message, without what `without_credentials` hides."""
    text = text.replace(uri, without_credentials(uri))
    userinfo = uri.partition("://")[2].rpartition("@")[0]
    hidden = [userinfo, userinfo.partition(":")[2], *dict(parse_qsl(urlsplit(uri).query)).values()]
    for secret in sorted({*hidden, *map(unquote, hidden)} - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text.strip().partition("\n")[0][:200]
