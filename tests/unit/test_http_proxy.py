"""Which proxy a request takes, and which hosts go without: held against curl itself where curl has a word for it."""

from __future__ import annotations

import socket
import subprocess
import threading

import pytest

from vigil.http.proxy import bypassed, proxy_for

# URL, no-proxy, whether it goes without; what curl must say too.
AS_CURL = [
    ("http://local.com/", "local.com", True),
    ("http://local.com:80/", "local.com", True),
    ("http://local.com:8080/", "local.com", True),
    ("http://www.local.com/", "local.com", True),
    ("http://a.b.local.com/", "local.com", True),
    ("http://www.notlocal.com/", "local.com", False),
    ("http://notlocal.com/", "local.com", False),
    ("http://local.com.evil.org/", "local.com", False),
    ("http://local.com/", ".local.com", True),
    ("http://www.local.com/", ".local.com", True),
    ("http://notlocal.com/", ".local.com", False),
    ("http://LOCAL.com/", "local.COM", True),
    ("http://local.com./", "local.com", True),
    ("http://local.com/", "local.com.", True),
    ("http://www.local.com/", ".local.com.", True),
    ("http://local.com/", "", False),
    ("http://local.com/", ".", False),
    ("http://local.com/", "*", True),
    ("http://10.1.2.3/", "*", True),
    ("http://local.com/", "com", True),
    ("http://local.com/", "*.local.com", False),
    ("http://local.com/", "other.org,local.com", True),
    ("http://local.com/", "other.org, local.com", True),
    ("http://local.com/", "other.org local.com", True),
    ("http://local.com/", " other.org ,, \t local.com ,", True),
    ("http://local.com/", "other.org,nothing", False),
    ("http://localhost/", "localhost,.internal", True),
    ("http://api.internal/", "localhost, .internal", True),
    ("http://internal/", "localhost, .internal", True),
    ("http://127.0.0.1/", "127.0.0.1", True),
    ("http://127.0.0.1:99/", "127.0.0.1", True),
    ("http://127.0.0.1/", "127.0.0.2", False),
    ("http://127.0.0.1/", "0.0.1", False),
    ("http://127.0.0.1/", ".0.0.1", False),
    ("http://127.0.0.1/", "localhost", False),
    ("http://127.1/", "127.0.0.1", True),
    ("http://10.255.0.1/", "10.0.0.0/8", True),
    ("http://11.0.0.1/", "10.0.0.0/8", False),
    ("http://192.168.1.31/", "192.168.1.16/28", True),
    ("http://192.168.1.32/", "192.168.1.16/28", False),
    ("http://192.168.1.1/", "192.168.1.1/32", True),
    ("http://192.168.1.2/", "192.168.1.1/32", False),
    ("http://192.168.1.1/", "192.168.1.1/33", False),
    ("http://169.254.3.4/", "localhost,169.254.0.0/16", True),
    ("http://10.example/", "10.0.0.0/8", False),
    ("http://[::1]/", "::1", True),
    ("http://[::1]:99/", "::1", True),
    ("http://[::2]/", "::1", False),
    ("http://[fe00::7]/", "fd00::/8", False),
    ("http://[2001:db9:1::1]/", "2001:db8::/32", False),
    ("http://[2001:db8:8000::1]/", "2001:db8::/33", False),
    ("http://[2001:db8::1]/", "2001:db8::/129", False),
    ("http://[::1]/", "127.0.0.1", False),
    ("http://[::ffff:10.0.0.1]/", "10.0.0.0/8", False),
    ("http://b\u00fccher.example/", "xn--bcher-kva.example", True),
    ("http://www.b\u00fccher.example/", "xn--bcher-kva.example", True),
    ("http://buecher.example/", "xn--bcher-kva.example", False),
]

# What we take beyond curl.
OURS = [
    # curl's manual has these, but some of its versions, 7.88 for one, compare IPv6 addresses as text.
    ("http://[::1]/", "0:0:0:0:0:0:0:1", True),
    ("http://[fd00::7]/", "fd00::/8", True),
    ("http://[2001:db8:1::1]/", "2001:db8::/32", True),
    ("http://local.com/", "local.com:80", True),
    ("http://local.com:8080/", "local.com:8080", True),
    ("http://www.local.com:8080/", ".local.com:8080", True),
    ("http://local.com/", "local.com:8080", False),
    ("https://local.com/", "local.com:443", True),
    ("https://local.com/", "local.com:80", False),
    ("http://local.com/", "local.com:http", False),
    ("http://local.com/", "local.com:", True),
    ("http://10.0.0.1:99/", "10.0.0.1:99", True),
    ("http://10.0.0.1:99/", "10.0.0.1:98", False),
    ("http://[::1]:99/", "[::1]", True),
    ("http://[::1]:99/", "[::1]:99", True),
    ("http://[::1]:99/", "[::1]:98", False),
    ("http://[fd00::7]/", "[fd00::]/8", True),
    ("http://xn--bcher-kva.example/", "b\u00fccher.example", True),
    ("http://www.b\u00fccher.example/", ".B\u00dcCHER.example", True),
    ("http://local.com/", " * ", True),
    ("http://local.com/", "\nlocal.com\n", True),
    ("http://10.0.0.1/", "0.0.0.0/0", True),
    ("http://[::1]/", "::/0", True),
    ("http://[::1]/", "0.0.0.0/0", False),
    ("http://local.com/", "0.0.0.0/0", False),
    ("http://10.0.0.1/", "10.0.0.0/x", False),
    ("http://10.0.0.1/", "10.0.0.0/", False),
    ("http://local.com/", "[", False),
    ("http://local.com/", "b\u00fc..x, \u2603, local.com", True),
]


@pytest.mark.parametrize(("url", "no_proxy", "without"), AS_CURL + OURS)
def test_no_proxy(url, no_proxy, without):
    assert (proxy_for(url, "http://p:3128", no_proxy, {}) is None) is without


class Listener:
    """Counts who connects, and answers like an HTTP server."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.count = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.count += 1
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_curl_says_the_same(need):
    need("curl")
    proxy, direct = Listener(), Listener()
    said = []
    for url, no_proxy, _ in AS_CURL:
        before = proxy.count, direct.count
        curl = ["curl", "-q", "-s", "-m", "20", "-o", "/dev/null", "-x", f"http://127.0.0.1:{proxy.port}"]
        command = [*curl, "--noproxy", no_proxy, "--connect-to", f"::127.0.0.1:{direct.port}", url]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env={"LC_ALL": "C.UTF-8"}, check=False)
        went = proxy.count - before[0], direct.count - before[1]
        assert went in ((1, 0), (0, 1)), (url, no_proxy, done.returncode)
        said.append((url, no_proxy, went == (0, 1)))
    proxy.close()
    direct.close()
    assert said == AS_CURL


ALL = {"HTTPS_PROXY": "http://s:1", "HTTP_PROXY": "http://h:2", "ALL_PROXY": "http://a:3"}


@pytest.mark.parametrize(
    ("url", "environment", "wanted"),
    [
        ("https://x/", ALL, "http://s:1"),
        ("http://x/", ALL, "http://h:2"),
        ("https://x/", {"ALL_PROXY": "http://a:3", "HTTP_PROXY": "http://h:2"}, "http://a:3"),
        ("https://x/", {"HTTP_PROXY": "http://h:2"}, "http://h:2"),
        ("http://x/", {"HTTPS_PROXY": "http://s:1"}, None),
        ("http://x/", {"ALL_PROXY": "http://a:3"}, "http://a:3"),
        ("https://x/", {"https_proxy": "http://low:1"}, "http://low:1"),
        ("https://x/", {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://s:1"}, "http://low:1"),
        ("https://x/", {"https_proxy": "", "HTTPS_PROXY": "http://s:1"}, "http://s:1"),
        ("http://x/", {"all_proxy": "p:3128"}, "http://p:3128"),
        ("http://x/", {}, None),
        ("http://x/", {"HTTP_PROXY": ""}, None),
        ("http://x/", ALL | {"NO_PROXY": "x"}, None),
        ("http://x/", ALL | {"no_proxy": "x", "NO_PROXY": "y"}, None),
        ("http://x/", ALL | {"no_proxy": "y", "NO_PROXY": "x"}, "http://h:2"),
    ],
)
def test_the_environment_says_which(url, environment, wanted):
    assert proxy_for(url, None, None, environment) == wanted


def test_what_is_given_wins_over_the_environment():
    assert proxy_for("http://x/", "http://p:1", None, ALL) == "http://p:1"
    assert proxy_for("http://x/", "p:1", None, {}) == "http://p:1"
    assert proxy_for("http://x/", "", None, ALL) is None
    assert proxy_for("http://x/", "http://p:1", None, {"NO_PROXY": "x"}) is None
    assert proxy_for("http://x/", "http://p:1", "", {"NO_PROXY": "x"}) == "http://p:1"
    assert proxy_for("http://x/", "http://p:1", "y", {"NO_PROXY": "x"}) == "http://p:1"


@pytest.mark.parametrize("url", ["http://", "nothing", "http:///path", "http://x:99999/", "http://x:y/"])
def test_a_url_without_a_host_or_with_a_wrong_port_is_an_error(url):
    with pytest.raises(ValueError):  # noqa: PT011 - its words are urllib's
        proxy_for(url, "http://p:1", None, {})


def test_a_host_may_be_given_with_and_without_brackets():
    assert bypassed("[::1]", 80, "::1")
    assert bypassed("::1", 80, "[::1]:80")
