"""One attempt: the request that is made of an alert and the environment, and what its answer means."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest

from tests.unit.alert_world import NoShim, Receiver
from tests.unit.http_world import Server
from vigil.alert.delivery import Courier, Impossible
from vigil.alert.state import Job
from vigil.plan.types import Alert
from vigil.shim.program import Programs

JOB = Job(7, "web", "down", 1_700_000_000 * 10**9, 1_700_000_000 * 10**9, 0)


def alert(url, **keys):
    return Alert(**({"name": "pager", "url": url, "on_check": ("web",), "timeout": 5.0} | keys))


def courier(**environment):
    return Courier("boot", environment, Programs(NoShim(), lambda: 1))


def attempt(what, **environment):
    async def run():
        made = courier(**environment)
        return await made.attempt(what, JOB, await made.body(what, JOB))

    return asyncio.run(run())


def test_a_post_with_the_body_and_the_content_type_of_its_format():
    with Receiver() as receiver:
        for form in ("webhook", "cloud-events"):
            assert attempt(alert(receiver.url + "hook?x=1", format=form)).ok
    (line, headers, body), (_, others, _) = receiver.got
    assert line == "POST /hook?x=1 HTTP/1.1"
    assert (headers["content-type"], others["content-type"]) == ("application/json", "application/cloudevents+json")
    assert headers["user-agent"].startswith("vigil/")
    assert (b'"check":"web"' in body, headers["content-length"]) == (True, str(len(body)))


def test_references_are_replaced_when_it_is_sent():
    with Receiver() as receiver:
        keys = {"headers": {"Authorization": "Bearer env:TOKEN", "X-Unset": "env:UNSET"}}
        keys |= {"labels": {"cluster": "env:CLUSTER", "none": "env:UNSET"}, "send_info_fields": {"run": "env:BOOK x"}}
        made = attempt(alert("env:URL", **keys), URL=f"  {receiver.url}\n", TOKEN="s3cret\n", CLUSTER="a", BOOK="b")
    assert made.ok, made
    assert receiver.got[0][1]["authorization"] == "Bearer s3cret"
    assert receiver.got[0][1]["x-unset"] == ""
    assert receiver.bodies[0]["labels"] == {"cluster": "a", "none": ""}
    assert receiver.bodies[0]["info"] == {"run": "b x"}


def test_a_header_of_its_own_wins_over_the_default_whatever_its_case():
    headers = courier().request(alert("http://x/", headers={"content-TYPE": "text/x", "user-agent": "me"}), b"").headers
    assert headers == {"content-TYPE": "text/x", "user-agent": "me"}


@pytest.mark.parametrize(
    ("keys", "environment", "why"),
    [
        ({"url": "env:URL"}, {}, "its url is empty (env:URL is not set)"),
        ({"url": "env:URL"}, {"URL": " "}, "its url is empty (env:URL is not set)"),
        ({"url": "env:URL"}, {"URL": "s3cret"}, "its url is no http:// or https:// URL (env:URL)"),
        ({"url": "env:URL"}, {"URL": "ftp://s3cret/"}, "its url is no http:// or https:// URL (env:URL)"),
        ({"url": "env:URL"}, {"URL": "http://x/s3cret y"}, "its url is no http:// or https:// URL (env:URL)"),
        ({"url": "env:URL"}, {"URL": "http:///s3cret"}, "its url names no host, or no port (env:URL)"),
        ({"url": "env:URL"}, {"URL": "http://x:port/s3cret"}, "its url names no host, or no port (env:URL)"),
        ({"headers": {"X-A": "env:A"}}, {"A": "s3cret\nX-B: 1"}, "its header X-A holds a character that no header can"),
        ({"headers": {"X-A": "env:A"}}, {"A": "\u2603 s3cret"}, "its header X-A holds a character that no header can"),
        ({"headers": {"X-A": "env:A"}}, {"A": "s3cret\udcff"}, "its header X-A holds a character that no header can"),
    ],
)
def test_what_cannot_be_sent_is_our_mistake_and_says_no_secret(keys, environment, why):
    ended = attempt(alert(**({"url": "http://127.0.0.1:1/"} | keys)), **environment)
    assert (ended.ok, ended.again, ended.ours, ended.error) == (False, False, True, why)


def test_tls_and_proxy_are_taken_from_the_plan_and_the_environment():
    keys = {"tls_ca": "env:CA", "proxy": "env:PROXY", "proxy_ca": "env:PCA", "no_proxy": "localhost,env:NOT"}
    environment = {"CA": "/ca.pem", "PCA": "/pca.pem", "PROXY": "https://p:3128", "NOT": ".internal"}
    request = courier(**environment).request(alert("https://x/", **keys), b"")
    assert (request.tls.ca, request.proxy, request.proxy_tls.ca) == ("/ca.pem", "https://p:3128", "/pca.pem")
    assert courier(**environment).request(alert("https://a.internal/", **keys), b"").proxy is None
    assert courier().request(alert("https://x/", tls_insecure=True), b"").tls.insecure
    unset = courier(HTTPS_PROXY="http://e:1").request(alert("https://x/", **keys), b"")
    assert (unset.tls.ca, unset.proxy, unset.proxy_tls.ca) == (None, "http://e:1", None)


@pytest.mark.parametrize(
    ("no_proxy", "wanted"), [(None, None), ("env:UNSET", None), ("", "http://e:1"), ("y", "http://e:1")]
)
def test_no_proxy_of_the_plan_stands_for_that_of_the_environment(no_proxy, wanted):
    environment = {"HTTP_PROXY": "http://e:1", "NO_PROXY": "x"}
    assert courier(**environment).request(alert("http://x/", no_proxy=no_proxy), b"").proxy == wanted


def test_it_goes_through_the_proxy():
    with Receiver() as proxy:
        assert attempt(alert("http://nowhere.invalid/hook", proxy=proxy.url)).ok
        assert attempt(alert("http://nowhere.invalid/hook"), HTTP_PROXY=proxy.url).ok
        assert not attempt(alert("http://127.0.0.1:1/", proxy=proxy.url, no_proxy="127.0.0.0/8")).ok
    assert [line for line, _, _ in proxy.got] == ["POST http://nowhere.invalid/hook HTTP/1.1"] * 2


@pytest.mark.parametrize(
    ("status", "again", "after"),
    [
        ("400 Bad Request", False, 0),
        ("401 Unauthorized", False, 0),
        ("404 Not Found", False, 0),
        ("408 Request Timeout", False, 0),
        ("429 Too Many Requests", True, 0),
        ("429 Too Many\nRetry-After: 7", True, 7),
        ("500 Internal Server Error", True, 0),
        ("503 Unavailable\nRetry-After: 120", True, 120),
        ("503 Unavailable\nRetry-After: 99999999999999999999", True, 86400),
        ("503 Unavailable\nRetry-After: soon", True, 0),
        ("503 Unavailable\nRetry-After: -5", True, 0),
        ("503 Unavailable\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT", True, 0),
        ("404 Not Found\nRetry-After: 7", False, 0),
    ],
)
def test_what_an_answer_means(status, again, after):
    with Receiver(status) as receiver:
        ended = attempt(alert(receiver.url + "s3cret"))
    assert (ended.ok, ended.again, ended.ours, ended.after) == (False, again, False, after)
    assert ended.error == f"127.0.0.1:{receiver.port} answers {status.partition(chr(10))[0]}"


def test_a_date_to_come_back_at():
    with Receiver(f"503 Unavailable\nRetry-After: {formatdate(time.time() + 100, usegmt=True)}") as receiver:
        assert 90 < attempt(alert(receiver.url)).after <= 100


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_taken(status):
    with Receiver(status) as receiver:
        assert attempt(alert(receiver.url)).ok


def test_redirects_are_not_followed_and_say_where_to_without_its_secrets():
    with Receiver("301 Moved\nLocation: https://new.example/s3cret") as receiver:
        ended = attempt(alert(receiver.url))
    assert (len(receiver.got), ended.again) == (1, False)
    assert ended.error.endswith(
        "301 Moved, a redirect to https://new.example/*****, which is not followed: write that as url"
    )


def test_nobody_there_and_nobody_who_answers_may_be_tried_again():
    ended = attempt(alert("http://127.0.0.1:1/s3cret"))
    assert (ended.again, ended.ours) == (True, False)
    assert "connection refused" in ended.error.lower()
    assert "s3cret" not in ended.error
    with Server(lambda connection, head: server.over.wait(60)) as server:
        began = time.monotonic()
        ended = attempt(alert(server.url, timeout=0.3))
        assert time.monotonic() - began < 5
    assert (ended.again, ended.ours) == (True, False)
    assert "no answer within 300ms" in ended.error


def test_who_has_said_200_has_said_it_however_long_it_talks_on():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"
    for behave in ("drip", "pour"):
        with Receiver() as receiver:
            receiver.answers = [getattr(receiver, behave)(head)]
            began = time.monotonic()
            assert attempt(alert(receiver.url)).ok
            assert time.monotonic() - began < 3


def test_a_receiver_without_tls_where_https_is_wanted_may_be_tried_again():
    with Receiver() as receiver:
        ended = attempt(alert(receiver.url.replace("http:", "https:")))
    assert (ended.again, ended.ours) == (True, False)
    assert "TLS" in ended.error


def test_impossible_is_said_before_anything_is_sent():
    with pytest.raises(Impossible, match="its url is empty"):
        courier().request(alert("env:X"), b"")
