"""Identities: their keys, and how merged fields become them. Entered only by a plan that has identities.

Hashes and certificates are looked at for their shape alone. What reads them in earnest is a heavy import, and is there
when somebody logs in.
"""

from __future__ import annotations

from typing import Any

from vigil.model.suggest import quote
from vigil.plan import values
from vigil.plan.fields import WHO, Field, override
from vigil.plan.merge import Item, Merged
from vigil.plan.problems import Problems
from vigil.plan.services import Outside
from vigil.plan.tree import Mapping, Node
from vigil.plan.types import BasicAuth, Identity, LocalAuth, TlsAuth

_HASH_LETTERS = frozenset("./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_ROUNDS = range(1000, 1_000_000_000)
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def password_hash(node: Node, at: str, problems: Problems) -> str | None:
    """A hash as crypt(3) writes it for SHA-512. It is in no message."""
    text = values.scalar(node, at, problems, "a password hash")
    if text is None or is_hash(text):
        return text
    why = "is a hash of another kind" if text.startswith("$") and not text.startswith("$6$") else "is not a hash"
    problems.error(node.place, at, f"{why} (a SHA-512-crypt hash begins with $6$: openssl passwd -6 makes one)")
    return None


def is_hash(text: str) -> bool:
    """Whether a text has the shape ``$6$[rounds=N$]SALT$HASH``."""
    parts = text.split("$")
    if len(parts) == 5 and parts[2].startswith("rounds="):
        rounds = parts.pop(2).removeprefix("rounds=")
        if not (rounds.isascii() and rounds.isdigit() and rounds[0] != "0" and len(rounds) < 10):
            return False
        if int(rounds) not in _ROUNDS:
            return False
    if len(parts) != 4 or parts[0] or parts[1] != "6" or len(parts[2]) > 16 or len(parts[3]) != 86:
        return False
    return not set(parts[2] + parts[3]) - _HASH_LETTERS


def ca_cert(node: Node, at: str, problems: Problems) -> str | None:
    """Certificates as text, or the path of a file that has some."""
    text = values.scalar(node, at, problems, "a certificate or a path")
    if text is None or text.startswith("/"):
        return text
    if "-----BEGIN" not in text:
        fix = f"write a path that begins with /, or the text that begins with {_BEGIN}"
        problems.error(node.place, at, f"{quote(text)} is neither a path nor a certificate ({fix})")
        return None
    try:
        return certificates_of(text)
    except ValueError as error:
        problems.error(node.place, at, str(error))
        return None


def certificates_of(text: str) -> str:
    """The certificates of a PEM text, all else left out; ValueError is a sentence about it."""
    import binascii

    blocks: list[str] = []
    rest = text
    if "PRIVATE KEY-----" in text:
        raise ValueError("holds a private key, which nobody but its owner should have (give the certificate alone)")
    while _BEGIN in rest:
        body, end, rest = rest.partition(_BEGIN)[2].partition(_END)
        try:
            der = binascii.a2b_base64("".join(body.split()).encode(), strict_mode=True) if end else b""
        except (ValueError, UnicodeEncodeError):
            der = b""
        if not _is_der(der):
            which = f"certificate {len(blocks) + 1}" if text.count(_BEGIN) > 1 else "the certificate"
            raise ValueError(f"{which} is cut off or broken (copy it whole, its first and last line too)")
        encoded = binascii.b2a_base64(der, newline=False).decode()
        lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
        blocks.append("\n".join((_BEGIN, *lines, _END, "")))
    if not blocks:
        raise ValueError(f"holds no certificate (one begins with {_BEGIN})")
    return "".join(blocks)


def _is_der(der: bytes) -> bool:
    """Whether it is one ASN.1 sequence, of just this length, that begins with another."""
    if len(der) < 64 or der[0] != 0x30:
        return False
    if der[1] < 0x80:
        start, size = 2, der[1]
    else:
        start = 2 + (der[1] & 0x7F)
        size = int.from_bytes(der[2:start], "big")
    return 2 <= start <= 6 and len(der) == start + size and der[start] == 0x30


_TLS = values.Block({"ca-cert": ca_cert}, required=("ca-cert",))

IDENTITY: dict[str, Field] = {
    "override": override,
    "access": Field(values.Choice("open", "metrics", "read", "write", "admin")),
    "local": Field(values.Block({"user-id": WHO["user-id"]})),
    "basic": Field(values.Block({"password-hash": password_hash}, required=("password-hash",))),
    "tls": Field(_TLS),
}

WAYS = ("local", "basic", "tls")
"""How somebody can show to be this identity."""


def certificates(merged: Merged) -> list[str]:
    """The paths that identities name."""
    ignored = Problems()
    found = []
    for item in merged.kinds["identities"].values():
        node = item.fields.get("tls")
        path = (_TLS(node, "", ignored) or {}).get("ca-cert", "") if node is not None else ""
        if path.startswith("/"):
            found.append(path)
    return found


def build(merged: Merged, outside: Outside, problems: Problems) -> dict[str, Identity]:
    """All identities that are right."""
    identities = {}
    for item in merged.kinds["identities"].values():
        identity = _identity(item, outside, problems)
        if identity is not None:
            identities[item.name] = identity
    return identities


def _identity(item: Item, outside: Outside, problems: Problems) -> Identity | None:
    at = f"identities.{item.name}"
    parsed = {key: IDENTITY[key].parse(node, f"{at}.{key}", problems) for key, node in item.fields.items()}
    given: dict[str, Any] = {key: value for key, value in parsed.items() if value is not None}
    if "access" not in item.fields:
        text = "is missing (open, metrics, read, write or admin)"
        problems.consequence(item.place, f"{at}.access", text, at, "access")
    if not any(way in item.fields for way in WAYS):
        text = "has none of local, basic and tls, so nobody can be it (write local: {user-id: 0}, or the like)"
        problems.consequence(item.place, at, text, at, *WAYS)
    if "basic" in item.fields and ":" in item.name:
        text = 'cannot go with a name that holds a ":" (it ends the user name of HTTP Basic)'
        problems.error(item.fields["basic"].place, f"{at}.basic", text)
    pem = given.get("tls", {}).get("ca-cert", "")
    if pem.startswith("/"):
        pem = _from_file(item, pem, outside, problems)
    if "access" not in given:
        return None
    local, basic = given.get("local"), given.get("basic", {}).get("password-hash")
    return Identity(
        name=item.name,
        access=given["access"],
        local=LocalAuth(local.get("user-id")) if local is not None else None,
        basic=BasicAuth(basic) if basic is not None else None,
        tls=TlsAuth(pem) if pem else None,
    )


def _from_file(item: Item, path: str, outside: Outside, problems: Problems) -> str:
    block = item.fields["tls"]
    node = _TLS.nodes(block, "", Problems())["ca-cert"] if isinstance(block, Mapping) else block
    at = f"identities.{item.name}.tls.ca-cert"
    content = outside.certificates.get(path)
    if content is None:
        why = outside.unread.get(path, "it was not read with the plan")
        problems.error(node.place, at, f"cannot read {path}: {why}")
        return ""
    try:
        return certificates_of(content.decode("utf-8", "replace"))
    except ValueError as error:
        problems.error(node.place, at, f"{path}: {error}")
        return ""
