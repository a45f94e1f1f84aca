"""TLS with certificates of a test's own authority, and proxies: plain and TLS, with and without a password."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.unit.http_world import OK, Proxy, Server, say
from vigil.http import tls
from vigil.http.fetch import FetchError, Request, Response, Tls, fetch

LONG = 20.0
SHORT = 0.3
PASSWORD = base64.b64encode(b"user:p@ss").decode()


def get(url: str, **more: Any) -> Response:
    return asyncio.run(fetch(Request(**({"method": "GET", "url": url, "timeout": LONG} | more))))


def fail(url: str, **more: Any) -> tuple[str, str]:
    with pytest.raises(FetchError) as caught:
        get(url, **more)
    return caught.value.kind, str(caught.value)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Tls:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return Tls(ca=str(path))


@pytest.fixture
def context(authority: trustme.CA) -> Callable[..., ssl.SSLContext]:
    """A server's, with a certificate for these names."""

    def make(*names: str, expired: bool = False) -> ssl.SSLContext:
        past = dt.datetime(2024, 1, 1, tzinfo=dt.UTC) if expired else None
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=past).configure_cert(made)
        return made

    return make


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def make(kind: Any = Server, *args: Any, **more: Any) -> Any:
        made = kind(*args, **more) if kind is Proxy else kind(say(OK), **more)
        request.addfinalizer(made.close)
        return made

    return make


def test_an_own_authority_is_trusted_where_it_is_named_and_only_there(start: Any, context: Any, ca: Tls) -> None:
    server = start(tls=context())
    whom = f"127.0.0.1:{server.port}"
    assert get(server.url, tls=ca).body == b"hello"
    assert fail(server.url) == ("tls", f"the certificate of {whom} is of an authority that is not trusted")
    assert get(server.url, tls=Tls(insecure=True)).body == b"hello"


def test_a_certificate_that_has_expired_or_is_for_another_host(start: Any, context: Any, ca: Tls) -> None:
    old, other = start(tls=context(expired=True)), start(tls=context("elsewhere.test"))
    assert fail(old.url, tls=ca) == ("tls", f"the certificate of 127.0.0.1:{old.port} has expired")
    assert fail(other.url, tls=ca) == ("tls", f"the certificate of 127.0.0.1:{other.port} is for another address")
    named = f"https://localhost:{other.port}/"
    assert fail(named, tls=ca) == ("tls", f"the certificate of localhost:{other.port} is for another host")
    assert get(old.url, tls=Tls(insecure=True)).status == get(named, tls=Tls(insecure=True)).status == 200


def test_what_speaks_no_tls_and_what_never_ends_its_handshake(ca: Tls) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        whom = f"127.0.0.1:{listener.getsockname()[1]}"
        expected = f"no answer within 300ms (still in the TLS handshake with {whom})"
        assert fail(f"https://{whom}/", tls=ca, timeout=SHORT) == ("timeout", expected)
        listener.accept()[0].close()

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=talk)
        thread.start()
        assert fail(f"https://{whom}/", tls=ca) == ("tls", f"{whom} does not speak TLS")
        thread.join()


def test_a_file_of_certificates_that_cannot_be_used(tmp_path: Path, start: Any, context: Any) -> None:
    server = start(tls=context())
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.write_text("nothing\n")
    reason = f"cannot read the certificates in {missing}: No such file or directory"
    assert fail(server.url, tls=Tls(ca=str(missing))) == ("tls", reason)
    assert fail(server.url, tls=Tls(ca=str(empty))) == ("tls", f"{empty} holds no certificate in PEM")


def test_contexts_are_shared_until_the_file_changes(start: Any, context: Any, ca: Tls) -> None:
    server = start(tls=context())
    assert ca.ca is not None
    first = tls.context(insecure=False, ca=ca.ca)
    for _ in range(3):
        assert get(server.url, tls=ca).status == 200
    assert tls.context(insecure=False, ca=ca.ca) is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    other = Path(ca.ca).with_name("new")
    trustme.CA().cert_pem.write_to_path(str(other))
    os.rename(other, ca.ca)
    assert fail(server.url, tls=ca)[0] == "tls"
    assert tls.context(insecure=False, ca=ca.ca) is not first
    assert len([key for key in tls._contexts if key[1] == ca.ca]) == 1


def test_contexts_do_not_pile_up(tmp_path: Path, authority: trustme.CA) -> None:
    for i in range(tls._KEPT + 10):
        path = tmp_path / f"{i}.pem"
        authority.cert_pem.write_to_path(str(path))
        tls.context(insecure=False, ca=str(path))
    assert len(tls._contexts) <= tls._KEPT


def test_a_directory_of_certificates(tmp_path: Path, start: Any, context: Any, ca: Tls, need: Any) -> None:
    need("openssl")
    import subprocess

    server = start(tls=context())
    assert ca.ca is not None
    folder = tmp_path / "certs"
    folder.mkdir()
    done = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", ca.ca], capture_output=True, check=True)
    (folder / f"{done.stdout.decode().strip()}.0").write_bytes(Path(ca.ca).read_bytes())
    assert get(server.url, tls=Tls(ca=str(folder))).status == 200


# --- proxies ---


def test_http_through_a_proxy_with_and_without_a_password(start: Any) -> None:
    server, proxy = start(), start(Proxy, wants=f"Basic {PASSWORD}")
    whom = f"127.0.0.1:{proxy.port}"
    assert get(server.url, proxy=f"http://user:p%40ss@{whom}").body == b"hello"
    assert proxy.heads[0].startswith(f"GET {server.url} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization" not in server.heads[0]
    refused = ("proxy", f"the proxy {whom} wants a user and a password, or others (407)")
    assert fail(server.url, proxy=f"http://{whom}") == refused
    assert fail(server.url, proxy=f"http://user:wrong@{whom}") == refused


def test_https_through_a_proxy_with_and_without_a_password(start: Any, context: Any, ca: Tls) -> None:
    server, proxy = start(tls=context()), start(Proxy, wants=f"Basic {PASSWORD}")
    whom = f"127.0.0.1:{proxy.port}"
    assert get(server.url, tls=ca, proxy=f"http://user:p%40ss@{whom}").body == b"hello"
    assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.".encode())
    assert b"Proxy-Authorization" not in server.heads[0]
    refused = ("proxy", f"the proxy {whom} wants a user and a password, or others (407)")
    assert fail(server.url, tls=ca, proxy=f"http://{whom}") == refused
    untrusted = f"the certificate of 127.0.0.1:{server.port} is of an authority that is not trusted"
    assert fail(server.url, proxy=f"http://user:p%40ss@{whom}") == ("tls", untrusted)


def test_a_proxy_that_speaks_tls_with_its_own_authority(start: Any, context: Any, ca: Tls) -> None:
    plain, secure, proxy = start(), start(tls=context()), start(Proxy, tls=context())
    whom = f"127.0.0.1:{proxy.port}"
    untrusted = ("proxy", f"the certificate of the proxy {whom} is of an authority that is not trusted")
    for url, more in ((plain.url, {}), (secure.url, {"tls": ca})):
        assert get(url, proxy=f"https://{whom}", proxy_tls=ca, **more).body == b"hello"
        assert get(url, proxy=f"https://{whom}", proxy_tls=Tls(insecure=True), **more).body == b"hello"
        assert fail(url, proxy=f"https://{whom}", **more) == untrusted
    insecure = {"proxy": f"https://{whom}", "proxy_tls": Tls(insecure=True)}
    assert fail(secure.url, **insecure)[0] == "tls"  # trusting the proxy is not trusting what is behind it


def test_a_proxy_that_is_not_there_does_not_answer_or_cannot_connect(start: Any, context: Any, ca: Tls) -> None:
    server, proxy = start(tls=context()), start(Proxy)
    whom = f"127.0.0.1:{proxy.port}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        nobody = f"127.0.0.1:{port}"
        refused = f"the proxy {whom} does not connect: 503 Service Unavailable"
        assert fail(f"https://{nobody}/", tls=ca, proxy=f"http://{whom}") == ("proxy", refused)
        assert fail(server.url, tls=ca, proxy=f"http://{nobody}") == (
            "proxy",
            f"the proxy: connection refused by {nobody}",
        )
    proxy.handler = proxy.hang
    reason = f"no answer within 300ms (still waiting for the proxy {whom} to connect)"
    assert fail(server.url, tls=ca, proxy=f"http://{whom}", timeout=SHORT) == ("timeout", reason)


def test_the_deadline_wakes_who_reads_through_a_proxy_that_speaks_tls(start: Any, context: Any, ca: Tls) -> None:
    secure, proxy = start(tls=context()), start(Proxy, tls=context())
    secure.handler = secure.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    more = {"tls": ca, "proxy": f"https://127.0.0.1:{proxy.port}", "proxy_tls": ca, "timeout": 1.0}
    assert fail(secure.url, **more) == ("timeout", "no answer within 1s (still reading the body of the answer)")
