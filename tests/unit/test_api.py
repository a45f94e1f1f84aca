"""What the API promises about its answers, whoever asks for what."""

from __future__ import annotations

import http.client
import inspect
import json
import os
import subprocess
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.unit.api_world import NOW, World, read_answer, service, world
from vigil.api.app import routes
from vigil.api.operation import Call, Operation, Query
from vigil.api.settings import Settings
from vigil.api.stream import Stream
from vigil.model import api
from vigil.model.api import Problem
from vigil.model.errors import Conflict, PlanError, Unavailable
from vigil.model.states import Access, ChangeStatus

NOBODY = 65534

# Everything that ``World`` needs to be asked by another user: the request on stdin, the answer on stdout.
_ASK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(sys.argv[1])
try:
    sock.sendall(sys.stdin.buffer.read())
    sock.shutdown(socket.SHUT_WR)
except OSError:
    pass
while piece := sock.recv(65536):
    sys.stdout.buffer.write(piece)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users can reach; pytest's own is closed to them."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def w(place: Path) -> Iterator[World]:
    with world(place) as made:
        yield made


def ask_as_nobody(w: World, request: bytes) -> bytes:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    command = ["/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable, "-c", _ASK, w.path]
    done = subprocess.run(
        command, input=request, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY, timeout=60, check=True
    )
    return done.stdout


def resources() -> dict[str, Any]:
    nothing: Any = SimpleNamespace()
    return dict(routes(nothing, nothing, Settings()))


def responders() -> list[tuple[str, str, Any]]:
    found = []
    for path, noun in resources().items():
        for name, method in inspect.getmembers(noun, callable):
            if name.startswith("on_"):
                found.append((path, name, method))
    return found


@pytest.mark.parametrize(
    ("path", "name", "method"), responders(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_responder_declares_its_level_and_types(path: str, name: str, method: Any) -> None:
    declared = getattr(method, "operation", None)
    assert isinstance(declared, Operation), f"{name} of {path} is not decorated with @op"
    inner = inspect.unwrap(method.method)
    hints = typing.get_type_hints(inner, include_extras=True)
    assert hints["return"] == declared.result
    call = hints["call"]
    assert typing.get_origin(call) is Call
    query, body = typing.get_args(call)
    assert query is declared.query
    assert body is (declared.body or type(None))
    placeholders = {part[1:-1] for part in path.split("/") if part.startswith("{")}
    assert set(inspect.signature(inner).parameters) == {"self", "call", *placeholders}
    assert declared.doing


def test_there_are_as_many_responders_as_the_api_has_operations() -> None:
    assert {(path, name) for path, name, _ in responders() if name != "on_head"} == {
        ("/v1/system-info", "on_get"),
        ("/v1/services", "on_get"),
        ("/v1/services", "on_post"),
        ("/v1/plan", "on_get"),
        ("/v1/replan", "on_post"),
        ("/v1/changes", "on_get"),
        ("/v1/changes/{id}", "on_get"),
        ("/v1/changes/{id}/wait", "on_get"),
        ("/v1/logs", "on_get"),
        ("/v1/logs/follow", "on_get"),
        ("/v1/vigild", "on_post"),
    }


def test_levels_are_those_of_the_documentation() -> None:
    levels = {(path, name): method.operation.access for path, name, method in responders() if name != "on_head"}
    assert levels.pop(("/v1/system-info", "on_get")) is Access.OPEN
    assert levels.pop(("/v1/services", "on_post")) is Access.WRITE
    assert levels.pop(("/v1/replan", "on_post")) is Access.WRITE
    assert levels.pop(("/v1/vigild", "on_post")) is Access.ADMIN
    assert set(levels.values()) == {Access.READ}


def test_everything_that_can_be_got_answers_head() -> None:
    names = {(path, name) for path, name, _ in responders()}
    assert all((path, "on_head") in names for path, name in names if name == "on_get")


def test_a_result_comes_in_the_sync_envelope(w: World) -> None:
    answer = w.get("/v1/system-info")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["type", "status-code", "status", "result"]
    assert (answer.json["type"], answer.json["status-code"], answer.json["status"]) == ("sync", 200, "OK")
    assert answer.json["result"]["boot-id"] == w.overlord.boot_id
    assert answer.json["result"]["last-upgrade"] is None


def test_a_command_comes_in_the_async_envelope_with_its_change(w: World) -> None:
    answer = w.post("/v1/services", '{"action":"start","services":["web"]}')
    assert answer.status == 202
    assert (answer.json["type"], answer.json["status-code"], answer.json["change"]) == ("async", 202, "1")
    assert answer.json["status"] == "Accepted"
    assert answer.json["result"]["tasks"] == [{"service": "web", "kind": "start", "status": "done", "err": None}]
    assert w.overlord.acts == [
        (api.ServicesAction(action="start", services=["web"]), f"uid {os.getuid()} over the Unix socket", None)
    ]


def test_a_replan_needs_no_body_and_answers_when_the_plan_is_in_force(w: World) -> None:
    answer = w.ask("POST /v1/replan HTTP/1.1\r\nHost: v\r\n\r\n")
    assert (answer.status, answer.json["type"]) == (200, "sync")
    result = answer.json["result"]
    assert (result["dry-run"], result["restarted"], result["pending-restart"]) == (False, ["web"], [])
    assert result["steps"] == [{"service": "web", "action": "restart", "why": ["command changed"]}]
    assert result["change"]["kind"] == "replan"
    assert w.overlord.replans == [(api.ReplanAction(), f"uid {os.getuid()} over the Unix socket", None)]


def test_a_replan_takes_its_flags_and_its_key(w: World) -> None:
    answer = w.post("/v1/replan", '{"dry-run": true, "no-restart": true}', headers="Idempotency-Key: k\r\n")
    assert (answer.status, answer.json["result"]["change"]) == (200, None)
    assert [(action, key) for action, _, key in w.overlord.replans] == [
        (api.ReplanAction(dry_run=True, no_restart=True), "k")
    ]


def test_a_replan_among_the_actions_is_a_change_like_others(w: World) -> None:
    answer = w.post("/v1/services", '{"action":"replan"}', headers="Idempotency-Key: k\r\n")
    assert (answer.status, answer.json["type"], answer.json["result"]["kind"]) == (202, "async", "replan")
    assert [(action, key) for action, _, key in w.overlord.replans] == [(api.ReplanAction(), "k")]


def test_a_plan_that_is_refused_comes_with_its_problems(w: World) -> None:
    problem = Problem(file="a.yaml", line=3, column=5, field="services.web.command", message="bad")
    w.overlord.breaks = PlanError([problem])
    for path, body in (
        ("/v1/replan", ""),
        ("/v1/services", '{"action":"replan"}'),
        ("/v1/vigild", '{"action":"restart"}'),
    ):
        answer = w.post(path, body)
        assert (answer.status, answer.json["result"]["kind"]) == (400, "bad-plan")
        assert answer.json["result"]["problems"][0]["line"] == 3
    assert not w.overlord.shutdowns


def test_the_plan_shows_secrets_to_admins_only(w: World) -> None:
    shown = w.get("/v1/plan").json["result"]
    assert shown == {"services": {"web": {"environment": {"TOKEN": "abc"}}}}
    assert (
        json.loads(ask_as_nobody(w, b"GET /v1/plan HTTP/1.1\r\nHost: v\r\n\r\n").partition(b"\r\n\r\n")[2])[
            "status-code"
        ]
        == 403
    )


# Every way in which a request can be wrong: status, kind, and what the message must name.
WRONG = [
    ("GET /nothing HTTP/1.1", "", 404, "not-found", "/nothing"),
    ("GET / HTTP/1.1", "", 404, "not-found", "/"),
    ("GET /v1/servces HTTP/1.1", "", 404, "not-found", "/v1/services"),
    ("DELETE /v1/services HTTP/1.1", "", 405, "method-not-allowed", "GET, HEAD, POST"),
    ("POST /v1/changes HTTP/1.1", "", 405, "method-not-allowed", "GET"),
    ("BREW /v1/changes HTTP/1.1", "", 400, "bad-request", "method"),
    ("GET /v1/services?names=web,wbe HTTP/1.1", "", 404, "not-found", "wbe"),
    ("GET /v1/services?nmaes=web HTTP/1.1", "", 400, "bad-request", 'did you mean "names"'),
    ("GET /v1/system-info?x=1 HTTP/1.1", "", 400, "bad-request", '"x"'),
    ("GET /v1/logs?n=many HTTP/1.1", "", 400, "bad-request", "query: n: expected a whole number"),
    ("GET /v1/logs?n=-1 HTTP/1.1", "", 400, "bad-request", "query: n: expected a whole number"),
    ("GET /v1/logs?n=1&n=2 HTTP/1.1", "", 400, "bad-request", '"n" is given twice'),
    ("GET /v1/logs?since=yesterday HTTP/1.1", "", 400, "bad-request", "yesterday"),
    ("GET /v1/logs?since=2026-03-21T12:00:00 HTTP/1.1", "", 400, "bad-request", "2026-03-21T12:00:00"),
    ("GET /v1/logs?services=wbe HTTP/1.1", "", 404, "not-found", 'did you mean "web"'),
    ("GET /v1/logs/follow?format=xml HTTP/1.1", "", 400, "bad-request", 'format: "xml" is not json, text or ndjson'),
    ("GET /v1/changes/77 HTTP/1.1", "", 404, "not-found", "77"),
    ("GET /v1/changes/77/wait HTTP/1.1", "", 404, "not-found", "77"),
    ("GET /v1/changes/77/wait?timeout=soon HTTP/1.1", "", 400, "bad-request", "soon"),
    ("POST /v1/services HTTP/1.1", "", 400, "bad-request", "no body"),
    ("POST /v1/services HTTP/1.1", '{"action":', 400, "bad-request", "not JSON"),
    ("POST /v1/services HTTP/1.1", "[" * 100_000, 400, "bad-request", "cannot read the request"),
    ("POST /v1/services HTTP/1.1", '{"\udcff":1}', 400, "bad-request", "not UTF-8"),
    ("POST /v1/services HTTP/1.1", '{"action":"\udcff"}', 400, "bad-request", "not UTF-8"),
    ("POST /v1/services HTTP/1.1", "[]", 400, "bad-request", "object"),
    ("POST /v1/services HTTP/1.1", '{"action":"start","colour":1}', 400, "bad-request", '"colour" is not a field'),
    ("POST /v1/services HTTP/1.1", '{"services":["web"]}', 400, "bad-request", '"action" is missing'),
    ("POST /v1/services HTTP/1.1", '{"action":"begin"}', 400, "bad-request", 'request: action: "'),
    ("POST /v1/services HTTP/1.1", '{"action":"start","services":["web",1]}', 400, "bad-request", "services[1]: "),
    ("POST /v1/services HTTP/1.1", '{"action":"start","services":["wbe"]}', 404, "not-found", "wbe"),
    ("POST /v1/services HTTP/1.1", '{"action":"replan","services":["web"]}', 400, "bad-request", "the whole plan"),
    ("POST /v1/services HTTP/1.1", '{"action":"replan","signal":"HUP"}', 400, "bad-request", "nor a signal"),
    ("POST /v1/replan HTTP/1.1", '{"dryrun":true}', 400, "bad-request", "dry-run"),
    ("POST /v1/replan HTTP/1.1", '{"dry-run":"yes"}', 400, "bad-request", "dry-run"),
    ("POST /v1/vigild HTTP/1.1", '{"action":"upgrade"}', 501, "not-supported", "cannot upgrade"),
    ("POST /v1/vigild HTTP/1.1", '{"action":"explode"}', 400, "bad-request", 'request: action: "'),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body", "status", "kind", "named"), WRONG)
def test_every_error_is_an_envelope_that_names_what_is_wrong(
    w: World, line: str, body: str, status: int, kind: str, named: str
) -> None:
    method, path, _ = line.split(" ")
    answer = w.post(path, body) if method == "POST" else w.get(path, method=method)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    told = answer.json
    assert list(told) == ["type", "status-code", "status", "result", "message"]
    assert (told["type"], told["status-code"]) == ("error", status)
    assert told["result"] == {"message": told["message"], "kind": kind}
    assert told["message"].startswith("cannot ")
    assert named in told["message"]
    assert "Traceback" not in told["message"]
    assert not w.overlord.shutdowns


def test_405_says_what_is_allowed(w: World) -> None:
    answer = w.get("/v1/services", method="PUT")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"


def test_a_form_is_refused_with_the_fix(w: World) -> None:
    answer = w.post("/v1/services", '{"action":"start"}', "application/x-www-form-urlencoded")
    assert answer.status == 415
    assert "Content-Type: application/json" in answer.json["message"]
    assert not w.overlord.acts


@pytest.mark.parametrize(
    "kind", [None, "application/json; charset=utf-8", "Application/JSON", "application/problem+json"]
)
def test_json_is_read_under_all_its_names(w: World, kind: str | None) -> None:
    assert w.post("/v1/services", '{"action":"stop"}', kind).status == 202


def test_an_encoded_body_is_refused(w: World) -> None:
    answer = w.post("/v1/services", "xx", headers="Content-Encoding: gzip\r\n")
    assert answer.status == 415
    assert "gzip" in answer.json["message"]


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (Conflict("cannot do it: not now"), 409, "conflict"),
        (Unavailable("cannot do it: stopping"), 503, "unavailable"),
        (PlanError([Problem(file="a.yaml", line=1, column=2, field="", message="bad")]), 400, "bad-plan"),
    ],
)
def test_errors_of_the_overlord_keep_their_status_kind_and_text(
    w: World, problem: Exception, status: int, kind: str
) -> None:
    w.overlord.breaks = problem
    answer = w.get("/v1/services")
    assert (answer.status, answer.json["result"]["kind"], answer.json["message"]) == (status, kind, str(problem))


def test_a_bug_is_a_500_without_a_word_of_python_and_the_connection_goes_on(
    w: World, capfd: pytest.CaptureFixture[str]
) -> None:
    w.overlord.breaks = ZeroDivisionError("secret")
    with w.connect() as sock:
        sock.sendall(b"GET /v1/services HTTP/1.1\r\nHost: v\r\n\r\n")
        answer = read_answer(sock)
        assert answer.status == 500
        assert answer.json["result"]["kind"] == "internal-error"
        assert b"secret" not in answer.body
        sock.sendall(b"GET /v1/system-info HTTP/1.1\r\nHost: v\r\n\r\n")
        assert read_answer(sock).status == 200
    said = capfd.readouterr().err
    assert "ZeroDivisionError" in said
    assert "api_world.py" in said  # where it came from


def test_head_is_get_without_its_body(w: World) -> None:
    got = w.get("/v1/services")
    with w.connect() as sock:
        sock.sendall(b"HEAD /v1/services HTTP/1.1\r\nHost: v\r\n\r\nGET /v1/system-info HTTP/1.1\r\nHost: v\r\n\r\n")
        head = read_answer(sock, head_only=True)
        assert (head.status, head.headers["content-length"]) == (200, got.headers["content-length"])
        assert head.body == b"" or head.body.startswith(b"HTTP/1.1 200")


def test_head_of_a_stream_follows_nothing(w: World) -> None:
    with w.connect() as sock:
        sock.sendall(b"HEAD /v1/logs/follow?format=ndjson HTTP/1.1\r\nHost: v\r\n\r\n")
        head = read_answer(sock, head_only=True)
    assert (head.status, head.headers["content-type"]) == (200, "application/x-ndjson")
    assert not w.logs.all_followers


def test_options_says_what_can_be_done(w: World) -> None:
    answer = w.get("/v1/services", method="OPTIONS")
    assert answer.status == 200
    assert "POST" in answer.headers["allow"]


def test_lists_in_queries_are_comma_separated_or_repeated(w: World) -> None:
    w.call(lambda: w.overlord.entries.update(api=service("api")))
    for query in ("names=db,web", "names=db&names=web", "names=db%2Cweb", "names=db,&names=,web", "names=db,%20web"):
        assert [entry["name"] for entry in w.get(f"/v1/services?{query}").json["result"]] == ["db", "web"], query
    assert len(w.get("/v1/services?names=").json["result"]) == 3


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/logs/follow?format=jsn", "", 'query: format: "jsn" is not json, text or ndjson (did you mean "json"?)'),
        ("/v1/logs/follow?n=x", "", "query: n: expected a whole number or null, got a text"),
        ("/v1/logs?n=-1", "", "query: n: expected a whole number >= 0"),
        ("/v1/services", '{"action":"strt"}', 'request: action: "strt" is not start, stop, restart, autostart, '),
        ("/v1/services", '{"action":"stop","servces":[]}', '"servces" is not a field (did you mean "services"?)'),
        ("/v1/services", '{"action":"stop","all":true}', '"all" is not a field (there are action, services, signal)'),
        ("/v1/services", '{"services":[]}', 'request: the field "action" is missing'),
        ("/v1/services", '{"action":"stop","services":"web"}', "services: expected a list, got a text"),
        ("/v1/services", '{"action":"stop","services":[1]}', "services[0]: expected a text, got a whole number"),
        ("/v1/services", '{"action":7}', "request: action: expected a text, got a whole number"),
        ("/v1/services", "[]", "request: expected an object, got a list"),
    ],
)
def test_what_does_not_fit_is_told_with_its_field_and_what_could_stand_there(
    w: World, path: str, body: str, told: str
) -> None:
    answer = w.post(path, body) if body else w.get(path)
    assert answer.status == 400
    assert told in answer.json["message"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_long_list_of_entries_comes_in_pieces_between_which_others_are_served(w: World, version: str) -> None:
    turns, taken = [0], []

    def count() -> None:
        turns[0] += 1
        w.loop.call_soon(count)

    def pieces() -> Iterator[bytes]:
        for seq in range(20):
            taken.append(turns[0])
            yield b'{"seq":%d}\n{"seq":%d}\n' % (2 * seq, 2 * seq + 1)

    w.logs.tail = lambda names, n, since: pieces()  # type: ignore[method-assign]
    w.call(count)
    with w.connect() as sock:
        sock.sendall(f"GET /v1/logs?n=100000 HTTP/{version}\r\nHost: v\r\n\r\n".encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.getheader("content-type") == "application/json"
        told = json.load(answer)
    assert [entry["seq"] for entry in told["result"]] == list(range(40))
    assert told["status-code"] == 200
    assert len(set(taken[1:])) == len(taken) - 1, "several pieces in one turn of the loop"


def test_head_of_a_long_list_has_no_body(w: World) -> None:
    w.logs.tail = lambda names, n, since: iter([b'{"seq":1}\n'] * 5)  # type: ignore[method-assign]
    with w.connect() as sock:
        sock.sendall(b"HEAD /v1/logs HTTP/1.1\r\nHost: v\r\n\r\nGET /v1/system-info HTTP/1.1\r\nHost: v\r\n\r\n")
        data = b""
        while b"boot-id" not in data:
            data += sock.recv(65536)
    assert data.count(b"HTTP/1.1 200") == 2
    assert data.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200")


def test_a_slash_at_the_end_changes_nothing(w: World) -> None:
    assert w.get("/v1/services/").status == 200


def test_a_command_repeated_with_its_key_is_the_same_change(w: World) -> None:
    first = w.post("/v1/services", '{"action":"stop"}', headers="Idempotency-Key: abc\r\n").json
    again = w.post("/v1/services", '{"action":"stop"}', headers="Idempotency-Key: abc\r\n").json
    other = w.post("/v1/services", '{"action":"stop"}', headers="Idempotency-Key: abd\r\n").json
    assert (first["change"], again["change"], other["change"]) == ("1", "1", "2")
    assert w.post("/v1/services", '{"action":"stop"}', headers=f"Idempotency-Key: {'x' * 201}\r\n").status == 400


def test_wait_answers_at_the_end_of_the_change_or_at_the_timeout_with_it_as_it_is(w: World) -> None:
    w.overlord.ends = None
    w.post("/v1/services", '{"action":"start"}')
    for timeout in ("0", "0.05", "50ms"):
        answer = w.get(f"/v1/changes/1/wait?timeout={timeout}")
        assert (answer.status, answer.json["result"]["status"]) == (200, "doing")
    with w.connect() as sock:
        sock.sendall(b"GET /v1/changes/1/wait HTTP/1.1\r\nHost: v\r\n\r\n")
        w.call(lambda: w.overlord.finish("1", ChangeStatus.ERROR, "exited with code 7"))
        assert read_answer(sock).json["result"]["err"] == "exited with code 7"


@pytest.mark.parametrize(("action", "restart"), [("stop", False), ("restart", True)])
def test_vigild_is_stopped_after_it_has_answered(w: World, action: str, restart: bool) -> None:
    answer = w.post("/v1/vigild", f'{{"action":"{action}"}}')
    assert (answer.status, answer.json["result"]) == (200, {"action": action})
    w.until(lambda: w.overlord.shutdowns)
    assert w.overlord.shutdowns == [(0, restart, f"uid {os.getuid()} over the Unix socket")]


def test_a_restart_needs_no_thread(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("asyncio.to_thread", fail)
    assert w.post("/v1/vigild", '{"action":"restart"}').status == 200
    w.until(lambda: w.overlord.shutdowns)
    w.overlord.breaks = PlanError([Problem(file="a.yaml", line=1, column=1, field="", message="no")])
    assert w.post("/v1/vigild", '{"action":"restart"}').status == 400


def test_a_restart_into_a_bad_plan_is_refused(w: World) -> None:
    problems = [
        Problem(file="web.yaml", line=3, column=5, field="services.web.command", message="is missing", width=7),
        Problem(file="web.yaml", line=0, column=0, field="", message="is empty"),
    ]
    w.overlord.breaks = PlanError(problems)
    answer = w.post("/v1/vigild", '{"action":"restart"}')
    assert (answer.status, answer.json["result"]["kind"]) == (400, "bad-plan")
    assert answer.json["message"] == "web.yaml:3:5: services.web.command: is missing\nweb.yaml: is empty"
    assert [msgspec.convert(one, Problem) for one in answer.json["result"]["problems"]] == problems
    assert not w.overlord.shutdowns


def test_logs_are_asked_for_as_the_query_says(w: World) -> None:
    w.get("/v1/logs")
    w.get("/v1/logs?services=web,vigild,web&n=5&since=17")
    w.get("/v1/logs?since=1970-01-01T00:01:00Z")
    w.get("/v1/logs?since=1970-01-01T02:01:00%2B02:00")
    w.get("/v1/logs?since=1970-01-01T02:01:00+02:00")
    assert w.logs.asked == [
        ("tail", ["db", "web"], 100, None),
        ("tail", ["web", "vigild"], 5, 17),
        ("tail", ["db", "web"], 100, 60.0),
        ("tail", ["db", "web"], 100, 60.0),
        ("tail", ["db", "web"], 100, 60.0),
    ]


def test_a_service_that_has_no_log_has_no_entries(w: World) -> None:
    w.call(lambda: w.overlord.entries.update(passthrough=service("passthrough")))
    answer = w.get("/v1/logs?services=passthrough")
    assert (answer.status, answer.json["result"]) == (200, [])


def test_entries_come_as_they_are_kept(w: World) -> None:
    w.call(lambda: w.logs.write("web", "\x00é\ufffd", "stderr"))
    w.call(lambda: w.logs.write("web", "half", partial=True))
    first, second = w.get("/v1/logs?services=web").json["result"]
    told = {"seq": 1, "timestamp": NOW, "service": "web", "stream": "stderr", "message": "\x00é\ufffd"}
    assert first == told
    assert second["partial"] is True


def test_what_follow_asks_for(w: World) -> None:
    def begin(query: str, headers: str = "") -> None:
        with w.connect() as sock:
            sock.sendall(f"GET /v1/logs/follow{query} HTTP/1.1\r\nHost: v\r\n{headers}\r\n".encode())
            sock.recv(1000)

    begin("")
    begin("?services=web&format=ndjson&n=3")
    begin("?since=5&format=text")
    begin("?since=5&n=2")
    begin("?since=5&n=2", "Last-Event-ID: 0a1b-2c3d-17\r\n")
    begin("", "Last-Event-ID: another-boot-17\r\n")
    everything = 10_000_000
    assert w.logs.asked == [
        ("follow", [], "json", 0, None),
        ("follow", ["web"], "ndjson", 3, None),
        ("follow", [], "text", everything, 5),
        ("follow", [], "json", 2, 5),
        ("follow", [], "json", everything, 17),
        ("follow", [], "json", everything, 0),
    ]
    assert w.get("/v1/logs/follow", "Last-Event-ID: nonsense\r\n").status == 400


NEEDS = [
    (b"GET /v1/system-info", None),
    (b"GET /v1/services", b"read"),
    (b"GET /v1/changes", b"read"),
    (b"GET /v1/changes/1", b"read"),
    (b"GET /v1/changes/1/wait", b"read"),
    (b"GET /v1/logs", b"read"),
    (b"GET /v1/logs/follow", b"read"),
    (b"HEAD /v1/services", b"read"),
    (b"POST /v1/services", b"write"),
    (b"POST /v1/vigild", b"admin"),
]


@pytest.mark.parametrize(("line", "needed"), NEEDS)
def test_another_user_gets_what_is_open_and_no_more(w: World, line: bytes, needed: bytes | None) -> None:
    body = b'{"action":"stop"}' if line.startswith(b"POST") else b""
    head = line + b" HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = ask_as_nobody(w, head + body)
    if needed is None:
        assert answer.startswith(b"HTTP/1.1 200 ")
        return
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    if not line.startswith(b"HEAD"):
        assert b"access level %s, and uid 65534 over the Unix socket has open" % needed in answer
        assert b'"kind":"forbidden"' in answer
    assert not w.overlord.acts
    assert not w.overlord.shutdowns


def test_access_is_checked_before_the_body_is_asked_for(w: World) -> None:
    head = b"POST /v1/services HTTP/1.1\r\nHost: v\r\nExpect: 100-continue\r\nContent-Length: 999999\r\n\r\n"
    answer = ask_as_nobody(w, head)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in answer
    assert b"connection: close" in answer.lower()


def test_whoever_is_refused_early_still_sees_why(w: World) -> None:
    size = 6 << 20
    head = (
        b"POST /v1/services HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    )
    answer = ask_as_nobody(w, head + b" " * size)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.rstrip().endswith(b"}")


def test_queries_have_no_types_that_cannot_be_spelled() -> None:
    shapes = {method.operation.query for _, _, method in responders()}
    for shape in shapes - {Query}:
        for field in msgspec.structs.fields(shape):
            assert not field.required, f"{shape.__name__}.{field.name}: everything behind a ? has a default"


def test_a_stream_knows_the_type_of_each_format() -> None:
    assert Stream.TYPES == {"json": "text/event-stream", "text": "text/event-stream", "ndjson": "application/x-ndjson"}
