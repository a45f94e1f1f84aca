"""The typed client: what can be asked of vigild, and patience with a control that is killed in the middle of it.

While control is being replaced, its listening socket stays open with PID 1: a new request waits there. One that was
under way breaks, and is sent again: every question may be asked twice, and a command carries an Idempotency-Key, by
which control knows that it has begun what it is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from vigil.client import places, wire
from vigil.client.errors import BadAnswer, ClientError, Lost, Refused, Unreachable
from vigil.model import api
from vigil.model.states import ChangeStatus

PATIENCE = 30.0
"""How long a request may take in all, in seconds, over all its attempts. Replacing control takes a fraction of one."""

_SILENCE = 45.0  # an event stream that says nothing for three pings is dead

T = TypeVar("T")


class _Envelope(msgspec.Struct, rename="kebab"):
    type: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    message: str = ""


class _Why(msgspec.Struct):
    kind: str = "error"
    problems: list[api.Problem] = []


class _Version(msgspec.Struct):
    version: str


class _Forward(msgspec.Struct, rename="kebab"):
    logs_forward: str = ""


class _Forwards(msgspec.Struct):
    services: dict[str, _Forward] = {}


class Lagged(msgspec.Struct, frozen=True):
    """In a stream of entries: so many were lost here, because they were overwritten before they could be sent."""

    count: int


class Restarted(msgspec.Struct, frozen=True):
    """In a stream of entries: vigild was restarted, and what follows is from its next boot."""


class Client:
    """Speaks to the vigild at ``socket``, or at the first of the usual places where one is."""

    def __init__(self, socket: str | None = None, *, patience: float = PATIENCE) -> None:
        self._sockets = [socket] if socket else places.usual()
        self._patience = patience

    def system_info(self) -> api.SystemInfo:
        """What vigild is, and since when."""
        return self.typed(self.get("/v1/system-info"), api.SystemInfo)

    def services(self, names: Sequence[str] = ()) -> list[api.Service]:
        """The services named (all, for none)."""
        return self.typed(self.get("/v1/services", names=names), list[api.Service])

    def changes(self) -> list[api.Change]:
        """All changes that are remembered, oldest first."""
        return self.typed(self.get("/v1/changes"), list[api.Change])

    def change(self, change_id: str) -> api.Change:
        """One change."""
        return self.typed(self.change_as_sent(change_id), api.Change)

    def change_as_sent(self, change_id: str) -> bytes:
        """One change, as it came."""
        return self.get(f"/v1/changes/{_quote(change_id)}")

    def act(self, action: api.ServicesAction) -> api.Change:
        """Begin a change, once, however often the connection breaks."""
        return self.typed(self._command("/v1/services", action), api.Change)

    def replan(self, action: api.ReplanAction) -> bytes:
        """Load the plan anew, once, however often the connection breaks: an api.Replan, as it came."""
        return self._command("/v1/replan", action)

    def passthrough(self, names: Sequence[str]) -> list[str]:
        """Those of the services named (of all, for none) whose output goes past vigild, so that no log has it."""
        try:
            plan = msgspec.json.decode(self.get("/v1/plan"), type=_Forwards)
        except msgspec.ValidationError:
            return []
        found = [name for name, service in plan.services.items() if service.logs_forward == "passthrough"]
        return [name for name in found if not names or name in names]

    def wait(self, change_id: str, seconds: float) -> api.Change:
        """The change at its end, or as it is after ``seconds``."""
        path = f"/v1/changes/{_quote(change_id)}/wait"
        return self.typed(self.get(path, timeout=f"{seconds:.3f}", slack=seconds), api.Change)

    def logs(self, services: Sequence[str], n: int, since: str | None = None) -> list[api.LogEntry]:
        """The last ``n`` entries, oldest first; ``since`` is a seq (exclusive) or an RFC 3339 time (inclusive)."""
        return self.typed(self.get("/v1/logs", services=services, n=str(n), since=since), list[api.LogEntry])

    def vigild(self, action: Literal["stop", "restart"]) -> bytes:
        """Stop or restart the daemon; returns as soon as that has begun, with what it answered."""
        body = msgspec.json.encode(api.DaemonAction(action=action))
        boot_id = self.system_info().boot_id
        while True:
            try:
                return self.request("POST", "/v1/vigild", body, again=False)
            except Lost:
                # Control went away before it could answer: because of this, or for a reason of its own?
                try:
                    if self.system_info().boot_id != boot_id:
                        return body
                except Unreachable as problem:
                    if problem.gone and action == "stop":
                        return body
                    raise

    def follow(
        self, services: Sequence[str], n: int = 0, since: str | None = None, *, reader: int | None = None
    ) -> Iterator[api.LogEntry | Lagged | Restarted]:
        """The last ``n`` entries, then every one that is written, for ever: none lost or doubled by a killed control.

        The place in the logs is fixed by asking for what is there: from then on it is known here, and no stream that
        breaks before its first event can lose it. ``reader``: a descriptor that what comes is written to; where nobody
        reads it any more, this raises BrokenPipeError instead of waiting for the next entry.
        """
        boot_id = self.system_info().boot_id
        entries = self.logs(services, max(n, 1), since)
        yield from entries[len(entries) - n :] if n else ()
        if not entries and since is not None:
            entries = self.logs(services, 1)
        place = f"{boot_id}-{entries[-1].seq if entries else 0}"
        target = "/v1/logs/follow" + _query({"services": services, "format": "json"})
        while True:
            try:
                # Where that is another boot than the place's, vigild begins with its first entry.
                with self._open("GET", target, None, {"Last-Event-ID": place}, self._patience, _SILENCE) as answer:
                    if answer.status != 200:
                        self._result(answer)
                    now = answer.headers.get("vigil-boot-id", boot_id)
                    if now != boot_id:
                        boot_id = now
                        yield Restarted()
                    answer.reader = reader
                    for event_id, event in self._events(answer.pieces()):
                        yield event
                        place = event_id or place
            except (Lost, TimeoutError):
                time.sleep(0.02)
            except Unreachable as problem:
                if problem.gone:
                    raise Unreachable("vigild has ended", gone=True) from None
                raise

    def get(self, path: str, *, slack: float = 0.0, **parameters: Sequence[str] | str | None) -> bytes:
        """The result of a question as it came, in JSON. ``slack``: seconds that vigild may take on purpose."""
        return self.request("GET", path + _query(parameters), slack=slack)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        slack: float = 0.0,
        again: bool = True,
    ) -> bytes:
        """The result of a request as it came, in JSON. ``again``: whether it may be sent once more where it broke."""
        end = time.monotonic() + self._patience + slack
        while True:
            left = max(0.1, end - time.monotonic())
            try:
                with self._open(method, target, body, headers or {}, left if again else 0.0, left) as answer:
                    return self._result(answer)
            except TimeoutError:
                from vigil.client.explain import silent

                raise silent(self._sockets[0], self._patience + slack) from None
            except Lost as problem:
                if not again:
                    raise
                if time.monotonic() + 0.05 >= end:
                    again_and_again = f"{problem}, again and again (is {self._sockets[0]} the socket of vigild?)"
                    raise Lost(again_and_again) from None
                time.sleep(0.05)
            except Refused as problem:
                if problem.status != 404 or not str(problem).startswith("cannot find /v1/"):
                    raise
                path = target.partition("?")[0]
                raise BadAnswer(f"vigild does not know {path}{self._versions()}") from None

    def _command(self, target: str, action: api.Request) -> bytes:
        key = {"Idempotency-Key": os.urandom(16).hex()}
        return self.request("POST", target, msgspec.json.encode(action), key)

    def _open(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], patience: float, silence: float
    ) -> wire.Answer:
        """Send the request, read the head of its answer; where it breaks, again, for ``patience`` seconds."""
        end = time.monotonic() + patience
        pause = 0.02
        while True:
            try:
                return self._ask_anyone(method, target, body, headers, silence)
            except Lost:
                if time.monotonic() + pause >= end:
                    raise
            time.sleep(pause)
            pause = min(0.5, pause * 2)

    def _ask_anyone(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], silence: float
    ) -> wire.Answer:
        """Ask at the first place where somebody listens, and stay there from then on."""
        problem: Unreachable | None = None
        distrusted = ""
        for path in self._sockets:
            if len(self._sockets) > 1 and not places.trusted(path):
                distrusted = f"; {os.path.dirname(path)} is another user's, or open to others, and is not trusted"
                continue
            try:
                answer = wire.ask(path, method, target, headers, body, silence)
            except Unreachable as why:
                if not why.gone:
                    raise
                problem = problem or why
                continue
            except BadAnswer as why:
                raise BadAnswer(f"the answer at {path} makes no sense: {why}") from None
            self._sockets = [path]
            return answer
        if problem is not None and len(self._sockets) == 1:
            raise problem
        looked = f"nobody listens at {', '.join(self._sockets)}{distrusted}"
        from vigil.client.explain import why_nowhere

        hint = why_nowhere(self._sockets) or "is vigild running? --socket names another place"
        raise Unreachable(f"{looked} ({hint})", gone=True)

    def _result(self, answer: wire.Answer) -> bytes:
        body = answer.body()
        try:
            envelope = msgspec.json.decode(body, type=_Envelope)
            why = msgspec.json.decode(envelope.result, type=_Why) if envelope.type == "error" else None
        except msgspec.DecodeError:
            server = f", {answer.headers['server']}" if "server" in answer.headers else ""
            raise BadAnswer(
                f"what answers at {self._sockets[0]} is not vigild (HTTP status {answer.status}{server})"
            ) from None
        if why is not None:
            raise Refused(answer.status, why.kind, envelope.message, why.problems)
        return bytes(envelope.result)

    def typed(self, result: bytes, shape: type[T]) -> T:
        """A result as what it should be; BadAnswer says that it is not."""
        try:
            return msgspec.json.decode(result, type=shape)
        except msgspec.ValidationError as problem:
            raise BadAnswer(f"the answer of vigild is not understood{self._versions()}: {problem}") from None

    def _versions(self) -> str:
        """The likely cause of misunderstandings, where it is this."""
        from vigil import __version__

        try:
            asking = Client(self._sockets[0], patience=2.0)
            theirs = msgspec.json.decode(asking.get("/v1/system-info"), type=_Version).version
        except (ClientError, msgspec.DecodeError):
            return ""
        return f" (it is version {theirs}, and this vigil is {__version__})" if theirs != __version__ else ""

    def _events(self, pieces: Iterator[bytes]) -> Iterator[tuple[str, api.LogEntry | Lagged]]:
        """The events of a stream with their ids. A part of an event at the end of a broken stream is no event."""
        buffer = b""
        for piece in pieces:
            *blocks, buffer = (buffer + piece).split(b"\n\n")
            for block in blocks:
                event_id, data = "", b""
                for line in block.split(b"\n"):
                    if line.startswith(b"data: "):
                        data = line[6:]
                    elif line.startswith(b"id: "):
                        event_id = line[4:].decode("latin-1")
                    elif line.startswith(b": lagged ") and line[9:].isdigit():
                        yield event_id, Lagged(int(line[9:]))
                if data:
                    yield event_id, self.typed(data, api.LogEntry)
        raise Lost("the stream ended")


def ended(change: api.Change) -> bool:
    """Whether it is over: done, failed, or put on hold until something else has happened."""
    return change.status is not ChangeStatus.DOING


def _query(parameters: dict[str, Any]) -> str:
    words = []
    for name, value in parameters.items():
        if value is not None and value != () and value != []:
            text = value if isinstance(value, str) else ",".join(value)
            words.append(f"{name}={_quote(text)}")
    return "?" + "&".join(words) if words else ""


def _quote(text: str) -> str:
    """Percent-encode; urllib.parse would cost 3 ms for this."""
    kept = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~,:"
    return "".join(chr(b) if b in kept else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape"))


__all__ = ["PATIENCE", "Client", "ClientError", "Lagged", "Restarted", "ended"]
