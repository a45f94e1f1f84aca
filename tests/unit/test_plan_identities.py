"""Identities of a plan: hashes and certificates, by their shape."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest
from passlib.exc import PasslibHashWarning
from passlib.hash import sha512_crypt

from tests.unit.plan_world import plan, problems, sources, warnings
from vigil.model.errors import PlanError
from vigil.plan import Plan, Sources, load, read
from vigil.plan.identities import certificates_of, is_hash
from vigil.plan.types import BasicAuth, Identity, LocalAuth, TlsAuth

HASH = "$6$saltsalt$" + "a" * 86

# A certificate of nobody: self-signed for the name "nobody", its key thrown away.
PEM = """\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIULIL2BMH+iCJWYFckiSUwBjumxn0wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyNTAzMzM1M1oYDzIxMjYxMTAxMDMz
MzUzWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARqPSK2VL21qbDBweoU50b4+TDr5KK9O7PQwVwZHlJhtyWcPVYiOe/RV/xRGOEm
7zJ9CJ2CnV8c5CNfhOGgYJAdo1MwUTAdBgNVHQ4EFgQUfpWERPBJSDzji40KWf0F
vLbERNYwHwYDVR0jBBgwFoAUfpWERPBJSDzji40KWf0FvLbERNYwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiB45pRQVrBskckfJeHDSznIkvZikBIa
DPe9F3Snmex0DAIhAKgD+86rGvKWuI8s9NCSsXqG+9ZiqKp4qcEQlHJZLT6N
-----END CERTIFICATE-----
"""


def test_an_identity_has_a_level_and_ways_to_prove_it() -> None:
    made = plan(f"""
        identities:
          a: {{access: admin, local: {{user_id: 1000}}}}
          b: {{access: open, local: {{}}}}
          c@example.com: {{access: read, basic: {{password-hash: '{HASH}'}}}}
          d: {{access: metrics, basic: {{password_hash: {HASH}}}, local: {{user-id: 0}}}}
        """)
    assert list(made.identities.values()) == [
        Identity(name="a", access="admin", local=LocalAuth(1000)),
        Identity(name="b", access="open", local=LocalAuth()),
        Identity(name="c@example.com", access="read", basic=BasicAuth(HASH)),
        Identity(name="d", access="metrics", basic=BasicAuth(HASH), local=LocalAuth(0)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {access: root, local: {}}", '"root" is not open, metrics, read, write or admin'),
        ("a: {local: {}}", "identities.a.access: is missing (open, metrics, read, write or admin)"),
        ("a: {access: read}", "identities.a: has none of local, basic and tls"),
        ("a: {access: read, local: {user-id: me}}", '"me" is not a whole number'),
        ("a: {access: read, local: {user-id: 4294967295}}", "is out of range"),
        ("a: {access: read, local: 1000}", '"1000" is not a mapping'),
        ("a: {access: read, basic: {}}", "basic.password-hash: is missing"),
        ("a: {access: read, tls: {}}", "tls.ca-cert: is missing"),
        ("a: {access: read, tls: {ca-cert: ca.pem}}", '"ca.pem" is neither a path nor a certificate'),
        ("'a:b': {access: read, basic: {password-hash: " + HASH + "}}", 'cannot go with a name that holds a ":"'),
        ("a: read", "is a text, not a mapping"),
    ],
)
def test_a_wrong_value_is_an_error(text: str, message: str) -> None:
    (found,) = problems(f"identities: {{{text}}}")
    assert message in found


def test_a_way_that_is_misspelled_is_a_warning_beside_the_error() -> None:
    (found,) = problems("identities: {a: {access: read, basics: {}}}")
    assert "has none of local, basic and tls" in found
    assert 'unknown key "basics" (did you mean "basic"?)' in "\n".join(
        problems("identities: {a: {access: read, basics: {}}}", check=True)
    )
    assert len(warnings("identities: {a: {access: read, local: {uid: 3}}}")) == 2


@pytest.mark.parametrize(
    "word", ["hunter2", "$1$salt$hash", "$2b$12$abcdefghijklmnopqrstuv", "$6$short", HASH + "a", HASH[:-1] + "!"]
)
def test_a_wrong_hash_is_told_without_showing_it(word: str) -> None:
    (found,) = problems(f"identities: {{a: {{access: read, basic: {{password-hash: '{word}'}}}}}}")
    kind = "of another kind " if word.startswith(("$1", "$2")) else ""
    assert f"hash {kind}(a SHA-512-crypt hash begins with $6$: openssl passwd -6 makes one)" in found
    assert word not in found


def test_what_is_taken_for_a_hash_is_what_the_library_takes_for_one() -> None:
    dice = random.Random(1)
    good = [
        sha512_crypt.using(rounds=1000, salt="ab").hash("x"),
        sha512_crypt.using(rounds=5000, salt="a.b/CDEF01234567").hash("x"),
        sha512_crypt.using(rounds=1234, salt="").hash("x"),
    ]
    assert all(map(is_hash, good))
    taken = refused = 0
    for _ in range(4000):
        text = list(dice.choice(good))
        for _ in range(dice.choice((0, 1, 1, 2))):
            at = dice.randrange(len(text))
            match dice.randrange(3):
                case 0:
                    del text[at]
                case 1:
                    text.insert(at, dice.choice("$a0=rounds!"))
                case _:
                    text[at] = dice.choice("$aZ09./=!é")
        word = "".join(text)
        try:
            sha512_crypt.from_string(word)
        except (ValueError, PasslibHashWarning):  # the warning: a salt that is too long, of which it takes a part
            expected = False
        else:
            expected = True
        assert is_hash(word) == expected, word
        taken += expected
        refused += not expected
    assert taken > 500
    assert refused > 500


def _indented(text: str) -> str:
    return "".join(f"        {line}\n" for line in text.splitlines())


def test_a_certificate_in_the_layer_is_taken_as_the_library_would() -> None:
    ssl.create_default_context(cadata=PEM)
    text = "identities:\n  a:\n    access: admin\n    tls:\n      ca-cert: |\n" + _indented(PEM)
    assert plan(text).identities["a"] == Identity(name="a", access="admin", tls=TlsAuth(PEM))


@pytest.mark.parametrize(
    "text",
    [
        "Certificate:\n    Data: of openssl\n" + PEM + "\ntrailing\n",
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", " ").replace("- M", "-\nM"),
        PEM.replace("\n", "\n   "),
    ],
)
def test_what_stands_around_a_certificate_and_how_its_lines_are_broken_makes_no_difference(text: str) -> None:
    assert certificates_of(text) == PEM
    assert certificates_of(text + PEM) == PEM + PEM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no certificate (one begins with -----BEGIN CERTIFICATE-----)"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds no certificate"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + PEM, "holds a private key"),
        (PEM.replace("-----END", ""), "is cut off or broken"),
        (PEM[:200] + PEM[230:], "is cut off or broken"),
        (PEM.replace("MII", "M!II"), "is cut off or broken"),
        (PEM[:100] + PEM[108:], "is cut off or broken"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "is cut off or broken"),
        (PEM + PEM[:100], "certificate 2 is cut off or broken"),
        (PEM[:100] + PEM, "certificate 1 is cut off or broken"),
    ],
)
def test_a_wrong_certificate_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="certificate") as caught:
        certificates_of(text)
    assert message in str(caught.value)


def _identity(directory: Path, path: Path) -> Plan:
    layers = directory / "layers"
    layers.mkdir(exist_ok=True)
    (layers / "1.yaml").write_text(f"identities:\n  a: {{access: read, tls: {{ca_cert: {path}}}}}\n")
    return load(read(str(layers)))


def test_the_file_of_a_certificate_is_read_with_the_plan(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("# ours\n" + PEM)
    assert _identity(tmp_path, tmp_path / "ca.pem").identities["a"].tls == TlsAuth(PEM)
    found = read(str(tmp_path / "layers"))
    (tmp_path / "ca.pem").unlink()
    assert load(found).identities["a"].tls == TlsAuth(PEM)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot read {}: No such file or directory"), ("none", "{}: holds no certificate")]
)
def test_a_file_without_a_certificate_is_an_error_at_the_key(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PlanError) as caught:
        _identity(tmp_path, path)
    (found,) = map(str, caught.value.problems)
    assert found.startswith(f"{tmp_path}/layers/1.yaml:2:36: identities.a.tls.ca-cert: {message.format(path)}")


def test_a_certificate_that_was_not_read_is_an_error() -> None:
    found = sources("identities: {a: {access: read, tls: {ca-cert: /c}}}")
    with pytest.raises(PlanError, match="cannot read /c: it was not read with the plan"):
        load(found)
    assert load(Sources("/l", found.layers, certificates=(("/c", PEM.encode()),))).identities["a"].tls == TlsAuth(PEM)
