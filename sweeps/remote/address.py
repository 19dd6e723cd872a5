"""Which cluster is meant, and the token that it is shown."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sweeps.mistakes import Refused

TOKEN_FILE = Path.home() / ".ray" / "auth_token"  # where Ray looks for one that is not named
VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
EXPECTED = "expected the dashboard's, such as http://HEAD:8265"
TOKEN = re.compile(r"[!-~]+")  # what a header can hold


@dataclass(frozen=True)
class Address:
    """Where a dashboard answers, and the token for it, with the place that it was read from."""

    url: str
    token: str | None = field(repr=False)
    source: str | None

    @property
    def host(self) -> str:
        """Return the head's name."""
        return urlsplit(self.url).hostname or ""

    @property
    def headers(self) -> dict[str, str]:
        """Return what every request carries."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @property
    def is_loopback(self) -> bool:
        """Tell whether nobody but this machine hears what is said."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def find(
    given: str | None, environment: Mapping[str, str], token_file: Path = TOKEN_FILE
) -> Address:
    """Return the address of --address, else of Ray's own variables, with the token for it.

    Raises Refused where there is none, where it is no dashboard's, and where a token is announced
    that cannot be read.
    """
    found = {"--address": given, **{name: environment.get(name) for name in VARIABLES}}
    name, said = next(((n, text) for n, text in found.items() if text), (None, None))
    if name is None or said is None:
        raise Refused([f"no cluster is named; give --address: {EXPECTED}"])
    url = _checked(name, said)
    token, source = _token(environment, token_file)
    return Address(url, token, source)


def _checked(name: str, said: str) -> str:
    """Return an address in its plain form; what is quoted of it is never a password."""
    try:
        parts = urlsplit(said)
        port = parts.port
    except ValueError:
        raise Refused([f"{name}: not an address; {EXPECTED}"]) from None
    if "@" in said or parts.query or parts.fragment:
        text = "an address holds no user, password or token; set RAY_AUTH_TOKEN_PATH instead"
        raise Refused([f"{name}: {text}"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused([f"{name}: '{said}' is not the address of a dashboard; {EXPECTED}"])
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"


def _token(environment: Mapping[str, str], file: Path) -> tuple[str | None, str | None]:
    """Return the token and where it was found, in Ray's own order."""
    token = environment.get("RAY_AUTH_TOKEN", "").strip()
    if token:
        return _usable(token, "RAY_AUTH_TOKEN"), "RAY_AUTH_TOKEN"
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    source, path = ("RAY_AUTH_TOKEN_PATH", Path(named)) if named else (str(file), file)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        token = ""
    if token:
        return _usable(token, source), source
    if named:
        text = f"RAY_AUTH_TOKEN_PATH: {named} holds no token that can be read"
        raise Refused([f"{text}; name the file that holds the cluster's"])
    if environment.get("RAY_AUTH_MODE") == "token":
        text = "RAY_AUTH_MODE is token, and there is no token"
        raise Refused([f"{text}; set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's"])
    return None, None


def _usable(token: str, source: str) -> str:
    if not TOKEN.fullmatch(token):
        raise Refused([f"{source}: not a token: it holds blanks or letters that no header can"])
    return token


def warning(address: Address) -> str | None:
    """Say where what is sent can be read by others, or where anybody is let in."""
    if address.is_loopback:
        return None
    if address.token is None:
        fix = "start Ray with a token"
        return f"{address.url}: asks for no token: whoever reaches it runs code there; {fix}"
    if address.url.startswith("http://"):
        fix = "use https, or an ssh tunnel to the head"
        return f"{address.url}: the token goes there unencrypted; {fix}"
    return None
