"""Which values of a plan may be secrets: whoever shows a plan, or a line of it, masks those.

A guess from names and shapes, on the safe side: what is masked without need costs a look into the file.
"""

from __future__ import annotations

MASK = "*****"
"""What stands in place of a secret."""

_WORDS = frozenset(
    (
        *("password", "passwd", "passphrase", "pass", "pwd", "pw", "secret", "secrets", "token", "tokens", "apikey"),
        *("credential", "credentials", "private", "auth", "authorization", "cookie", "session", "hash", "salt"),
        *("jwt", "bearer", "dsn", "sas", "signature", "passcode", "pin", "otp", "totp"),
    )
)

# Parts of one word, as in DBPASSWORD and MYSECRETS; those in _WORDS are short enough to be part of innocent ones.
_PARTS = ("password", "passwd", "passphrase", "secret", "token", "apikey", "credential", "authorization", "privatekey")

# A key by itself is no secret (``key: value``); one of these kinds is.
_KINDS_OF_KEY = frozenset(
    (
        *(
            "api",
            "access",
            "account",
            "app",
            "auth",
            "encryption",
            "encrypt",
            "signing",
            "sign",
            "ssh",
            "storage",
            "master",
        ),
        *(
            "shared",
            "hmac",
            "aes",
            "rsa",
            "ssl",
            "tls",
            "service",
            "deploy",
            "license",
            "session",
            "cookie",
            "crypt",
            "server",
            "client",
        ),
        *("publishable", "webhook"),
    )
)


def looks_secret(name: str) -> bool:
    """Whether what has this name is probably not for everyone: ``DB_PASSWORD``, ``api-key``, ``DBPASSWORD``."""
    lowered = name.lower()
    if any(part in lowered for part in _PARTS):
        return True
    words = lowered.replace("-", "_").replace(".", "_").split("_")
    return any(
        word in _WORDS or (word in ("key", "keys") and before in _KINDS_OF_KEY)
        for before, word in zip(("", *words), words, strict=False)
    )
