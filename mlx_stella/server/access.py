"""Who may call: which names the server answers to, which web pages may ask it, and with which key.

A server on this machine can be reached by every web page that its user opens. A page's own name may
be led to a loopback address (DNS rebinding), which the Host header shows; a page that sends a
request without leave is shown by the Origin header, since the browser executes it, leave or not.
"""

import hmac
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"

_PROGRAMS = ("app://obsidian.md", "capacitor://localhost", "tauri://localhost")
"""Origins of programs that are web pages inside: Obsidian, on a phone too; Tauri."""

_PROGRAM_SCHEMES = ("vscode-webview",)  # the rest of such an origin is drawn by lot

_SHARED_PATHS = ("/v1/embeddings", "/v1/models", "/embed", "/info", "/tokenize", "/similarity")
_SHARED_PREFIXES = ("/v1/models/", "/api/", "/v2/")


def is_shared(path: str) -> bool:
    """Whether pages of other programs may ask this path: it gives vectors, and nothing of files."""
    return path in _SHARED_PATHS or path.startswith(_SHARED_PREFIXES)


@dataclass(frozen=True)
class Access:
    """Who may call. What is not listed may not.

    Attributes:
        hosts: names besides localhost and the addresses that the server has.
        origins: of web pages that may ask for vectors, such as "https://notes.example".
        keys: one of them is asked for; none: everybody who reaches the server may call.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        bind: str = LOOPBACK,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        keys: Iterable[str] = (),
    ) -> "Access":
        """With the names that are everybody's: the bind address, this machine's name in its
        network, and the one by which Docker's containers call it.
        """
        own = socket.gethostname().split(".")[0]
        named = {*hosts, bind, f"{own}.local", "host.docker.internal"}
        return cls(
            frozenset(name.lower().rstrip(".") for name in named),
            frozenset(origin.lower().rstrip("/") for origin in origins),
            tuple(keys),
        )

    def knows_host(self, header: str, address: str) -> bool:
        """Whether the server goes by the name in a Host header.

        ``address``: the one that the connection came in at. A page cannot be called by it, unless
        it came from there; and 0.0.0.0 is nobody's.
        """
        name = _name(header)
        if name is None:
            return False
        if name == "localhost" or name.endswith(".localhost"):
            return True
        number = _number(name)
        if number is None:
            return name in self.hosts
        if number.is_unspecified:
            return False
        return number.is_loopback or number == _number(address) or name in self.hosts

    def knows_origin(self, origin: str, host: str, path: str) -> bool:
        """Whether a web page of this origin may ask for the path.

        Args:
            origin: the header, such as "http://localhost:3000".
            host: the request's own Host header, which has passed.
        """
        origin = origin.lower()
        try:
            scheme, authority, *_ = urlsplit(origin)
        except ValueError:
            return False
        is_web = scheme in ("http", "https")
        if is_web and authority == host.lower():
            return True
        if not is_shared(path):
            return False
        if origin in _PROGRAMS or origin in self.origins or scheme in _PROGRAM_SCHEMES:
            return True
        return is_web and _is_local(_name(authority))

    def knows_key(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request carries one of the keys, if there are any.

        It takes the same time whichever key is wrong, and wherever.
        """
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = [headers.get(b"x-api-key", b""), headers.get(b"api-key", b"")]
        if scheme.lower() == b"bearer":
            given.append(bearer.strip())
        pairs = [(mine.encode(), theirs) for mine in self.keys for theirs in given]
        return not self.keys or any([hmac.compare_digest(*pair) for pair in pairs])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to the host."""
    return _is_local(_name(f"[{host}]" if ":" in host else host))


def _is_local(name: str | None) -> bool:
    if name is None:
        return False
    number = _number(name)
    return number.is_loopback if number else name == "localhost" or name.endswith(".localhost")


def _name(authority: str) -> str | None:
    """The host of "host:port", without brackets, in small letters; None if it is none."""
    if not authority or any(c in authority for c in "/@\\?#, ") or not authority.isascii():
        return None
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port  # raises on one that is no number
    except ValueError:
        return None
    return parts.hostname.rstrip(".") if parts.hostname else None


def _number(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return None
    return getattr(number, "ipv4_mapped", None) or number
