"""What goes wrong with a tracking server, in one sentence and without a secret."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
# What MLflow says (the first that fits), and what we say.
PROBLEMS = (
    (
        "unsupported URI",
        "is no address that MLflow knows: expected http(s)://, postgresql://, mysql:// or sqlite:///",
    ),
    ("maintenance mode", "is a folder of files, which MLflow no longer writes: use sqlite:///FILE"),
    ("Invalid Host header", "does not know its own name: start it with --allowed-hosts"),
    (
        "password authentication|access denied",
        "refused the user name or password: correct those in MLFLOW_TRACKING_URI",
    ),
    (
        "No module named 'psycopg2?'",
        "needs a driver: pip install psycopg2-binary, and write postgresql+psycopg2://",
    ),
    (
        "certificate verify failed",
        "has a certificate that is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH",
    ),
    ("wrong version number", "speaks http:// there, not https://: correct MLFLOW_TRACKING_URI"),
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
    if refusal := _refusal(uri, said):
        return f"MLflow at {where} {refusal}"
    known = (words for pattern, words in PROBLEMS if re.search(pattern, said, re.IGNORECASE))
    what = next(known, None) or f"failed ({type(failure).__name__}: {scrubbed(said, uri)})"
    return f"MLflow at {where} {what}"


def _refusal(uri: str, said: str) -> str | None:
    """Return what a server that asks for a password says of whom it was given."""
    inside = "@" in uri.partition("://")[2].partition("/")[0]
    user = os.environ.get(USER)
    if re.search("error code 403|PERMISSION_DENIED", said):
        who = "this user" if inside or not user else user
        return (
            f"lets {who} read this study and not write it: ask its administrator for the "
            "permission EDIT, or give the study another name"
        )
    if not re.search("error code 401|UNAUTHENTICATED", said):
        return None
    if inside:
        return "refused the user name or password: correct those in MLFLOW_TRACKING_URI"
    if not user:
        return f"wants a user name and a password: set {USER} and {PASSWORD}"
    return f"refused the user name or password: correct {USER} and {PASSWORD}"


def scrubbed(text: str, uri: str) -> str:
    """Return the first line of a message, without what `without_credentials` hides."""
    text = text.replace(uri, without_credentials(uri))
    userinfo = uri.partition("://")[2].rpartition("@")[0]
    hidden = [userinfo, userinfo.partition(":")[2], *dict(parse_qsl(urlsplit(uri).query)).values()]
    for secret in sorted({*hidden, *map(unquote, hidden)} - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text.strip().partition("\n")[0][:200]
