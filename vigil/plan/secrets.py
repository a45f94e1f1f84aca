"""Which values of a plan may be secrets: whoever shows a plan, or a line of it, masks those.

A guess from names and shapes, on the safe side: what is masked without need costs a look into the file.
"""

from __future__ import annotations

from vigil.model.suggest import quote

MASK = "*****"
"""What stands in place of a secret."""

_WORDS = frozenset(
    (
        *("pass", "pwd", "pw", "passcode", "private", "cookie", "jwt", "bearer", "dsn", "sas", "signature", "salt"),
        *("otp", "totp", "token", "tokens"),
    )
)

_LAST_WORDS = frozenset(("auth",))  # REDIS_AUTH, and not AUTH_METHOD

_PARTS = ("password", "passwd", "passphrase", "secret", "apikey", "credential", "authorization", "privatekey")

# A key by itself is no secret (``key: value``), and a public one is none; one of these kinds is.
_KINDS_OF_KEY = frozenset(
    (
        *(
            "access",
            "account",
            "aes",
            "api",
            "app",
            "auth",
            "client",
            "crypt",
            "deploy",
            "encrypt",
            "encryption",
            "hmac",
        ),
        *("license", "master", "rsa", "server", "service", "session", "shared", "sign", "signing", "ssh", "ssl"),
        *("storage", "tls", "webhook"),
    )
)

# DB_PASSWORD_FILE says where the secret is.
_QUOTED_MAX = 1000  # characters that are looked through where some sixty are shown

_PLACES = frozenset(("file", "path", "dir"))


def looks_secret(name: str) -> bool:
    """Whether what has this name is probably not for everyone: ``DB_PASSWORD``, ``api-key``, ``MYTOKEN``."""
    words = _words(name)
    if not words or words[-1] in _PLACES:
        return False
    lowered = "".join(words)
    if lowered.endswith("token") or any(part in lowered for part in _PARTS):
        return True
    return words[-1] in _LAST_WORDS or any(
        word in _WORDS or (word in ("key", "keys") and before in _KINDS_OF_KEY)
        for before, word in zip(("", *words), words, strict=False)
    )


def last_word(field: str) -> str:
    """The key that a field is of: ``kill-delay`` of ``services.web.kill-delay``."""
    return field.rpartition(".")[2]


def masked(name: str, text: str) -> str:
    """The text of a value that has this name, its secrets masked. ``env:NAME`` says where one is, and is none."""
    if not text or not looks_secret(name):
        return masked_text(text)
    words = text.split()
    return text if words and len(words) < 3 and words[-1].startswith("env:") else MASK


def quoted(text: str, name: str = "") -> str:
    """A text of a plan as messages show it: quoted, and masked as the value of ``name``."""
    return quote(masked(name, text[:_QUOTED_MAX]))


def masked_text(text: str) -> str:
    """A text, a command above all, less what looks like a secret by what stands before it.

    ``//USER:PASSWORD@``, ``NAME=VALUE``, ``--NAME VALUE`` and ``NAME: VALUE``.
    """
    import re  # only what is shown is masked

    text = re.sub(r"(://)(?:[^\s/?#'\"]*|[^\s/@:'\"]+:[^\s'\"]*)@", rf"\1{MASK}@", text)
    for before, value in (  # each name from its beginning on, so that the time does not grow with its length's square
        (r"(?<![\w.-])([\w.-]+)[ \t]*=[ \t]*", r"'[^']*'|\"[^\"]*\"|[^\s&;'\"]+"),
        (r"(?<!\S)--?([\w.-]+)[ \t]+", r"'[^']*'|\"[^\"]*\"|[^\s'\"-]\S*"),
        (r"(?<![\w-])([\w-]+):[ \t]+", r"[^'\"\n]+"),
    ):
        name, secret = re.compile(before), re.compile(value)
        at = 0
        while (found := name.search(text, at)) is not None:
            at = found.end()  # and not the end of its value: in ``login: password: x`` the second name counts
            behind = secret.match(text, at) if looks_secret(found[1]) else None
            if behind is not None:
                text = text[:at] + MASK + text[behind.end() :]
    return text


def masked_argv(argv: list[str]) -> list[str]:
    """The words of a command."""
    shown: list[str] = []
    before = ""
    for word in argv:
        flag = before.startswith("-") and "=" not in before and looks_secret(before)
        shown.append(MASK if flag and not word.startswith("-") else masked_text(word))
        before = word
    return shown


def masked_url(url: str) -> str:
    """Scheme, host and port of a URL whose path may be a key, as those of chat services are."""
    if url.startswith("env:"):
        return url
    scheme, separator, rest = url.partition("://")
    authority = rest
    for end in "/?#":
        authority = authority.partition(end)[0]
    host = authority.rpartition("@")[2]
    if not separator or not host:
        return MASK
    shown = f"{scheme}://{MASK}@{host}" if "@" in authority else f"{scheme}://{host}"
    return shown + (f"/{MASK}" if rest[len(authority) :] not in ("", "/") else rest[len(authority) :])


def _words(name: str) -> list[str]:
    """``dbPassword``, ``DB_PASSWORD`` and ``db-password`` are two words."""
    words: list[str] = []
    word = ""
    for letter in name:
        if not letter.isalnum():
            words.append(word)
            word = ""
        else:
            if letter.isupper() and word and word[-1].islower():
                words.append(word)
                word = ""
            word += letter
    words.append(word)
    return [word.lower() for word in words if word]
