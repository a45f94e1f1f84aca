"""What is sent: the four formats. Pure.

Texts that came from outside may hold what is no UTF-8; it becomes U+FFFD, since JSON cannot carry it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from vigil.alert.state import Job
from vigil.model import say

Format = Literal["webhook", "alertmanager", "cloud-events", "otlp-logs"]

CONTENT_TYPES: dict[Format, str] = {
    "webhook": "application/json",
    "alertmanager": "application/json",
    "cloud-events": "application/cloudevents+json",
    "otlp-logs": "application/json",
}

_NO_END = "0001-01-01T00:00:00Z"
_ERROR, _INFO = 17, 9  # severities of OpenTelemetry


class Message(msgspec.Struct, frozen=True):
    """A job, with everything that goes into its body."""

    alert: str
    job: Job
    id: str  # a UUID, the same at each attempt
    labels: dict[str, str]
    info: dict[str, str]


def message_id(boot_id: str, alert: str, job: Job) -> str:
    """The UUID of a job: made from what stands in the journal, so that a control that comes after makes the same."""
    import uuid  # only cloud-events takes one

    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{boot_id}/{alert}/{job.number}/{job.real_ns}"))


def variables(message: Message) -> dict[str, Any]:
    """What a body-template has, and what the default body of a webhook is."""
    job = message.job
    return {
        "check": job.check,
        "status": job.status,
        "timestamp": say.timestamp(job.real_ns),
        "labels": _clean(message.labels),
        "info": _clean(message.info),
    }


def body(form: Format, message: Message) -> bytes:
    """The body, as JSON."""
    return msgspec.json.encode(_BODIES[form](message))


def _alertmanager(message: Message) -> Any:
    job = message.job
    # The alert's name is what the alert is called, unless a label of its own says otherwise. Which check it is about is
    # part of what makes it this alert and no other: no label can say otherwise.
    labels = {"alertname": message.alert} | _clean(message.labels) | {"check": job.check}
    time = say.timestamp(job.real_ns)
    return [
        {
            "labels": labels,
            "annotations": _clean(message.info),
            "startsAt": say.timestamp(job.fired_ns),
            "endsAt": _NO_END if job.status == "down" else time,
        }
    ]


def _cloud_events(message: Message) -> Any:
    job = message.job
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": "vigild",
        "type": f"io.vigil.check.{_word(job)}",
        "time": say.timestamp(job.real_ns),
        "datacontenttype": "application/json",
        "data": {
            "check": job.check,
            "status": job.status,
            "labels": _clean(message.labels),
            "info": _clean(message.info),
        },
    }


def _otlp_logs(message: Message) -> Any:
    job = message.job
    attributes = {"check.name": job.check, "check.status": job.status}
    for texts in (message.labels, message.info):  # a key may be there once only: the first counts
        for name, text in _clean(texts).items():
            attributes.setdefault(name, text)
    down = job.status == "down"
    record = {
        "timeUnixNano": str(job.real_ns),
        "observedTimeUnixNano": str(job.real_ns),
        "severityNumber": _ERROR if down else _INFO,
        "severityText": "ERROR" if down else "INFO",
        "body": {"stringValue": f"check {job.check} {_word(job)}"},
        "attributes": [{"key": name, "value": {"stringValue": text}} for name, text in attributes.items()],
    }
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {"name": "vigild"}, "logRecords": [record]}]}]}


_BODIES = {
    "webhook": variables,
    "alertmanager": _alertmanager,
    "cloud-events": _cloud_events,
    "otlp-logs": _otlp_logs,
}


def _word(job: Job) -> str:
    return "failed" if job.status == "down" else "recovered"


def _clean(texts: dict[str, str]) -> dict[str, str]:
    return {name: text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name, text in texts.items()}
