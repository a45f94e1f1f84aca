"""Which proxy a request goes through. The one implementation for all programs. Pure.

A proxy that is given wins; else the environment says one, by the URL's scheme. Either way what ``no-proxy`` matches
goes without. A pattern of ``no-proxy`` means what it means to curl:

* ``local.com`` and ``.local.com``: that host and all below it, on every port; whatever its case and its trailing dot;
* ``10.0.0.1``, ``10.0.0.0/8``, ``fd00::/8``: those addresses, where the URL has an address (names are not looked up);
* ``*`` alone: everything.

Beyond curl it may be ``host:port`` (that port only) and ``[::1]``, ``/0`` is every address of that family, and names of
other scripts are the same as their ``xn--`` form. Patterns are separated by commas and blanks.
"""

from __future__ import annotations

import _socket
from collections.abc import Mapping
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}

# HTTP_PROXY last for https, as it is in the order that users are told. An http URL never takes HTTPS_PROXY: where only
# that is set, what is inside is reached by http and without a proxy.
_VARIABLES = {"https": ("https_proxy", "all_proxy", "http_proxy"), "http": ("http_proxy", "all_proxy")}

_NUMBERS = frozenset("0123456789abcdefx.")


def proxy_for(url: str, proxy: str | None, no_proxy: str | None, environment: Mapping[str, str]) -> str | None:
    """The URL of the proxy for a request to ``url``; None: none. ValueError where ``url`` has no host or a bad port.

    ``proxy`` and ``no_proxy`` None: what ``environment`` says. Empty: none, whatever the environment says.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("it names no host")
    port = parts.port or _PORTS.get(parts.scheme, 0)  # .port raises ValueError where it is none
    if proxy is None:
        proxy = _first(environment, _VARIABLES.get(parts.scheme, ()))
    if no_proxy is None:
        no_proxy = _first(environment, ("no_proxy",))
    if not proxy or bypassed(parts.hostname, port, no_proxy):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether a request to ``host`` (an IPv6 address with or without its brackets) goes without a proxy."""
    if no_proxy.strip() == "*":
        return True
    name = _name(host)
    address = _address(name)
    return any(_matches(pattern, name, address, port) for pattern in no_proxy.replace(",", " ").split())


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of these variables that is not empty; each in lower case before it is looked for in upper case."""
    return next(filter(None, (environment.get(key, "") for name in names for key in (name, name.upper()))), "").strip()


def _matches(pattern: str, name: str, address: bytes | None, port: int) -> bool:
    pattern, wanted = _split(pattern)
    if wanted is not None and wanted != port:
        return False
    if address is not None:
        network, slash, bits = pattern.partition("/")
        return _within(address, _address(network), bits if slash else "")
    below = _name(pattern).removeprefix(".")
    return bool(below) and (name == below or name.endswith("." + below))


def _split(pattern: str) -> tuple[str, int | None]:
    """A pattern and its port. More than one colon without brackets is an IPv6 address."""
    if pattern.startswith("["):
        inner, _, rest = pattern[1:].partition("]")
        bits, _, port = rest.partition(":")
        return inner + bits, _port(port)
    if pattern.count(":") == 1:
        before, _, after = pattern.partition(":")
        return before, _port(after)
    return pattern, None


def _port(text: str) -> int | None:
    if not text:
        return None
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else -1


def _within(address: bytes, network: bytes | None, bits: str) -> bool:
    if network is None or len(network) != len(address):
        return False
    if not bits:
        return address == network
    if not (bits.isascii() and bits.isdecimal() and len(bits) < 4) or int(bits) > 8 * len(address):
        return False
    shift = 8 * len(address) - int(bits)
    return int.from_bytes(address) >> shift == int.from_bytes(network) >> shift


def _name(host: str) -> str:
    """``host`` in the one form that is compared: lower case, ``xn--``, without brackets and the dot at its end."""
    host = host.strip("[]").removesuffix(".").lower()
    if host.isascii():
        return host
    import idna  # comes with requests; few hosts need it

    dot = "." if host.startswith(".") else ""
    try:
        return dot + idna.encode(host.removeprefix("."), uts46=True).decode()
    except idna.IDNAError:
        return host


def _address(host: str) -> bytes | None:
    """An address as its bytes; None: it is a name. ``127.1`` is an address, since whoever connects takes it for one."""
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_pton(family, host)
        except OSError:
            pass
    if host[:1].isdecimal() and not set(host) - _NUMBERS:
        try:
            return _socket.inet_aton(host)
        except OSError:
            pass
    return None
