"""Alerts over a journal in memory and a loop of their own, receivers on loopback, and a control that may be killed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from tests.unit.http_world import Server
from vigil.alert.actor import Alerts, Outside
from vigil.plan.types import Alert, AlertSettings
from vigil.shim.program import Programs

LIMIT = 20.0


class Receiver(Server):
    """Records what it is sent, and answers with the next of ``answers`` (the last one for ever)."""

    def __init__(self, *answers: Any, **more: Any) -> None:
        super().__init__(self._record, **more)
        self.answers = list(answers) or ["200 OK"]
        self.got: list[tuple[str, dict[str, str], bytes]] = []  # request line, headers, body

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.got]

    @property
    def told(self) -> list[tuple[str, str]]:
        """Checks and their statuses, where the format is webhook."""
        return [(body["check"], body["status"]) for body in self.bodies]

    def _record(self, connection: Any, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            piece = connection.recv(65536)
            if not piece:
                return  # control died in the middle of it: this is no message
            body += piece
        self.got.append((line, headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer(connection, data)
        else:
            first, *more = answer.split("\n")
            text = "\r\n".join((f"HTTP/1.1 {first}", "Content-Length: 0", *more))
            connection.sendall(text.encode() + b"\r\n\r\n")


class NoShim:
    """There is nothing to be run."""

    def spawn(self, spec: Any) -> None:
        raise AssertionError("nothing is to be run")


class World:
    """Lives of control, one after the other, with what outlives them."""

    def __init__(
        self,
        *alerts: Alert,
        environment: dict[bytes, bytes] | None = None,
        programs: Programs | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **settings: Any,
    ) -> None:
        self.plan = {alert.name: alert for alert in alerts}
        self.settings = AlertSettings(**settings)
        self.environment = environment or {}
        self.programs = programs or Programs(NoShim(), lambda: 1)  # type: ignore[arg-type]
        self.journal: dict[str, bytes] = {}
        self.loop = loop or asyncio.new_event_loop()
        self.own = loop is None
        self.kills = 0
        self.alerts: Alerts
        self.begin()

    def begin(self) -> None:
        outside = Outside(self, self.turn, self.programs, self.environment, "boot")
        self.alerts = Alerts(outside, self.plan, self.settings, list(self.journal.items()))
        self.turn(self.alerts.attach)

    def kill(self) -> None:
        """control dies at this instant: nothing of it goes on, and the next one begins."""
        self.kills += 1
        self.alerts.close()
        self.alerts._outside = None  # type: ignore[assignment]
        self.alerts._actors = {}
        self.turn_loop(0)
        self.begin()

    def turn(self, call: Callable[[], Any]) -> Any:
        """As the overlord does it: change, write, act."""
        result = call()
        for key, value in self.alerts.writes().items():
            if value is None:
                del self.journal[key]
            else:
                self.journal[key] = value
        assert self.alerts.writes() == {}
        self.alerts.act()
        return result

    def changed(self, *results: tuple[str, str]) -> World:
        for check, status in results:
            self.turn(lambda check=check, status=status: self.alerts.changed(check, status))
        return self

    def replan(self, *alerts: Alert, statuses: dict[str, str] | None = None, **settings: Any) -> None:
        self.plan = {alert.name: alert for alert in alerts}
        self.settings = AlertSettings(**settings)
        self.turn(lambda: self.alerts.replan(self.plan, self.settings, statuses or {}))  # type: ignore[arg-type]

    # --- the clock of alerts ---

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def realtime_ns(self) -> int:
        return time.time_ns()

    def soon(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    # --- time ---

    def turn_loop(self, seconds: float = 0.005) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def until(self, condition: Callable[[], Any], what: str = "it") -> Any:
        end = time.monotonic() + LIMIT
        while not (found := condition()):
            assert time.monotonic() < end, f"{what} never came"
            due = self.alerts.deadline()
            if due is not None and due <= time.monotonic_ns():
                self.turn(self.alerts.due)
            self.turn_loop()
        return found

    def quiet(self) -> None:
        """Until nothing is left to be delivered."""
        self.until(lambda: not any(self.alerts.shown(name)[1].jobs for name in self.alerts.names()), "an empty queue")

    def close(self) -> None:
        self.alerts.close()
        self.turn_loop(0)
        if self.own:
            self.loop.close()
