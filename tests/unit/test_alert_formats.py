"""What alerts send: each format against a text written by hand, and against the libraries of those who receive it."""

from __future__ import annotations

import json
import uuid

import msgspec
import pytest

from vigil.alert import formats, words
from vigil.alert.state import Job
from vigil.plan.types import Alert

FIRED = 1_700_000_000_000_000_000
RESOLVED = 1_700_000_060_123_456_789
T_FIRED = "2023-11-14T22:13:20.000000Z"
T_RESOLVED = "2023-11-14T22:14:20.123456Z"
DOWN = Job(7, "db-ready", "down", FIRED, FIRED, 0)
UP = Job(8, "db-ready", "up", RESOLVED, FIRED, 0)
LABELS = {"severity": "critical", "cluster": "a"}
INFO = {"runbook": "https://wiki.example/db"}
ID = "c5a5b1b0-0000-4000-8000-000000000000"


def sent(form, job, labels=LABELS, info=INFO):
    return json.loads(formats.body(form, formats.Message("pager", job, ID, labels, info)))


def test_webhook():
    assert sent("webhook", DOWN) == {
        "check": "db-ready",
        "status": "down",
        "timestamp": T_FIRED,
        "labels": {"severity": "critical", "cluster": "a"},
        "info": {"runbook": "https://wiki.example/db"},
    }
    assert (sent("webhook", UP)["status"], sent("webhook", UP)["timestamp"]) == ("up", T_RESOLVED)


def test_alertmanager():
    labels = {"alertname": "pager", "check": "db-ready", "severity": "critical", "cluster": "a"}
    assert sent("alertmanager", DOWN) == [
        {
            "labels": labels,
            "annotations": {"runbook": "https://wiki.example/db"},
            "startsAt": T_FIRED,
            "endsAt": "0001-01-01T00:00:00Z",
        }
    ]
    assert sent("alertmanager", UP) == [
        {
            "labels": labels,
            "annotations": {"runbook": "https://wiki.example/db"},
            "startsAt": T_FIRED,
            "endsAt": T_RESOLVED,
        }
    ]


def test_alertmanager_may_be_given_another_alertname_but_not_another_check():
    (alert,) = sent("alertmanager", DOWN, {"alertname": "Broken", "check": "x"})
    assert alert["labels"] == {"alertname": "Broken", "check": "db-ready"}


@pytest.mark.parametrize(("job", "word", "time"), [(DOWN, "failed", T_FIRED), (UP, "recovered", T_RESOLVED)])
def test_cloud_events(job, word, time):
    assert sent("cloud-events", job) == {
        "specversion": "1.0",
        "id": ID,
        "source": "vigild",
        "type": f"io.vigil.check.{word}",
        "time": time,
        "datacontenttype": "application/json",
        "data": {
            "check": "db-ready",
            "status": job.status,
            "labels": {"severity": "critical", "cluster": "a"},
            "info": {"runbook": "https://wiki.example/db"},
        },
    }
    assert formats.CONTENT_TYPES["cloud-events"] == "application/cloudevents+json"


def test_the_sdk_of_cloudevents_takes_it():
    from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

    body = formats.body("cloud-events", formats.Message("pager", UP, ID, LABELS, INFO))
    event = from_structured_event(HTTPMessage({"content-type": formats.CONTENT_TYPES["cloud-events"]}, body))
    assert (event.get_id(), event.get_source(), event.get_type()) == (ID, "vigild", "io.vigil.check.recovered")
    assert event.get_time().isoformat() == "2023-11-14T22:14:20.123456+00:00"
    assert event.get_data()["labels"] == LABELS


@pytest.mark.parametrize(
    ("job", "word", "number", "severity", "nanoseconds"),
    [
        (DOWN, "failed", 17, "ERROR", "1700000000000000000"),
        (UP, "recovered", 9, "INFO", "1700000060123456789"),
    ],
)
def test_otlp_logs(job, word, number, severity, nanoseconds):
    record = {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": number,
        "severityText": severity,
        "body": {"stringValue": f"check db-ready {word}"},
        "attributes": [
            {"key": "check.name", "value": {"stringValue": "db-ready"}},
            {"key": "check.status", "value": {"stringValue": job.status}},
            {"key": "severity", "value": {"stringValue": "critical"}},
            {"key": "cluster", "value": {"stringValue": "a"}},
            {"key": "runbook", "value": {"stringValue": "https://wiki.example/db"}},
        ],
    }
    scope = {"scope": {"name": "vigild"}, "logRecords": [record]}
    assert sent("otlp-logs", job) == {"resourceLogs": [{"resource": {}, "scopeLogs": [scope]}]}


def test_the_messages_of_opentelemetry_take_it():
    from google.protobuf.json_format import Parse
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_ERROR, SEVERITY_NUMBER_INFO

    for job, severity in ((DOWN, SEVERITY_NUMBER_ERROR), (UP, SEVERITY_NUMBER_INFO)):
        body = formats.body("otlp-logs", formats.Message("pager", job, ID, LABELS, INFO))
        request = Parse(body, ExportLogsServiceRequest())
        (scope,) = request.resource_logs[0].scope_logs
        (record,) = scope.log_records
        assert (scope.scope.name, record.severity_number, record.time_unix_nano) == ("vigild", severity, job.real_ns)
        assert {pair.key: pair.value.string_value for pair in record.attributes} == {
            "check.name": "db-ready",
            "check.status": job.status,
            **LABELS,
            **INFO,
        }


def test_otlp_has_each_key_once():
    attributes = sent("otlp-logs", DOWN, {"a": "label", "check.name": "x"}, {"a": "info"})
    pairs = attributes["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"]
    assert [(pair["key"], pair["value"]["stringValue"]) for pair in pairs] == [
        ("check.name", "db-ready"),
        ("check.status", "down"),
        ("a", "label"),
    ]


@pytest.mark.parametrize("form", ["webhook", "alertmanager", "cloud-events", "otlp-logs"])
def test_bytes_that_are_no_utf_8_and_quotes_make_json_all_the_same(form):
    labels = words.resolve_all(
        {"a": "env:ODD", "b": "env:QUOTED"}, words.decoded({b"ODD": b"x\xff", b"QUOTED": b'"\n\\'})
    )
    text = json.dumps(sent(form, DOWN, labels), ensure_ascii=False)
    assert "x\ufffd" in text
    assert json.dumps('"\n\\') in text


def test_the_id_of_a_job_is_a_uuid_that_the_next_control_makes_again():
    made = formats.message_id("boot", "pager", DOWN)
    assert str(uuid.UUID(made)) == made == formats.message_id("boot", "pager", DOWN)
    same_moment = msgspec.structs.replace(DOWN, number=8)
    others = [("boot", "pager", UP), ("boot", "pager", same_moment), ("boot", "other", DOWN), ("later", "pager", DOWN)]
    assert len({made, *(formats.message_id(*other) for other in others)}) == 5


# --- env: words ---


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("env:A", "1"),
        ("Bearer env:A", "Bearer 1"),
        ("env:A env:B", "1 two words"),
        ("localhost,env:A", "localhost,1"),
        ("localhost, env:A;x", "localhost, 1;x"),
        ("  env:A\t", "  1\t"),
        ("env:UNSET", ""),
        ("Bearer env:UNSET", "Bearer "),
        ("env:EMPTY", ""),
        ("xenv:A", "xenv:A"),
        ("env:A/path", "env:A/path"),
        ("http://x/env:A", "http://x/env:A"),
        ("env:", "env:"),
        ("env:1A", "env:1A"),
        ("env:_A9", "nine"),
        ("env:\u00c4", "env:\u00c4"),
        ("env:RECURSIVE", "env:A"),
        ("", ""),
    ],
)
def test_words_that_refer_to_a_variable(text, wanted):
    environment = {"A": "1", "B": "two words", "EMPTY": "", "_A9": "nine", "RECURSIVE": "env:A", "1A": "no"}
    assert words.resolve(text, environment) == wanted


ALERT = Alert(
    name="pager",
    url="env:URL",
    on_check=("x",),
    headers={"Authorization": "Bearer env:TOKEN", "X-Plain": "x"},
    labels={"cluster": "env:CLUSTER", "twice": "env:CLUSTER env:CLUSTER env:SET"},
    send_info_fields={"runbook": "env:RUNBOOK"},
    proxy="env:PROXY",
    no_proxy="localhost,env:NOT",
    tls_ca="env:CA",
    proxy_ca="env:PROXY_CA",
    body_template="env:NOTHING",
)


def test_every_reference_to_nothing_is_found_once_for_each_field():
    environment = {"SET": "1", "URL": "", "PROXY_CA": "/x"}
    assert [(found.alert, found.field, found.env_var) for found in words.missing([ALERT], environment)] == [
        ("pager", "url", "URL"),
        ("pager", "headers.Authorization", "TOKEN"),
        ("pager", "labels.cluster", "CLUSTER"),
        ("pager", "labels.twice", "CLUSTER"),
        ("pager", "send-info-fields.runbook", "RUNBOOK"),
        ("pager", "proxy", "PROXY"),
        ("pager", "no-proxy", "NOT"),
        ("pager", "tls-ca", "CA"),
    ]


def test_the_warning_has_its_fields(capfd):
    words.warn([ALERT], dict.fromkeys(("TOKEN", "CLUSTER", "SET", "RUNBOOK", "PROXY", "NOT", "CA", "PROXY_CA"), "x"))
    (line,) = capfd.readouterr().err.splitlines()
    assert " WARN vigil.alert an alert refers to a variable that is unset or empty" in line
    assert line.endswith(" alert=pager field=url env_var=URL")
