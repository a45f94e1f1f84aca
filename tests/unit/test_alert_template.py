"""body-templates, rendered by the built PID 1's own means: what they make, and how little harm they can do."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

import pytest

from tests.channel.worlds import LIMIT, RealWorld
from tests.unit.alert_world import Receiver, World
from vigil.alert.template import TemplateError, render
from vigil.plan.types import Alert
from vigil.shim.program import Programs

pytestmark = pytest.mark.pid1

VARIABLES = {
    "check": "website-alive",
    "status": "down",
    "timestamp": "2026-03-21T12:00:00.000000Z",
    "labels": {"cluster": "prod-1"},
    "info": {"runbook": "https://wiki.example.com/runbooks/website-down"},
}

SLACK = (
    """{"text": ":{% if status == 'down' %}red_circle{% else %}large_green_circle{% endif %} """
    """*{{ check }}* is *{{ status }}* on `{{ labels.cluster }}`"}"""
)

TEAMS = """\
{
  "@type": "MessageCard",
  "@context": "https://schema.org/extensions",
  "themeColor": "{% if status == 'down' %}FF0000{% else %}00CC00{% endif %}",
  "title": "Vigil Alert - {{ check }}",
  "text": "Check *{{ check }}* is *{{ status }}* on `{{ labels.cluster }}`.",
  "potentialAction": [{
    "@type": "OpenUri",
    "name": "Open Runbook",
    "targets": [{ "os": "default", "uri": "{{ info.runbook }}" }]
  }]
}
"""


class Kitchen:
    """A control that renders."""

    def __init__(self, real):
        self.daemon = real.daemon
        self.control = real.attach()
        self.programs = Programs(self.control.link, itertools.count(1).__next__)
        self.control.link.listen(self.control.loop, self.programs.handle)

    def run(self, work):
        return self.control.loop.run_until_complete(asyncio.wait_for(work, LIMIT))

    def render(self, template, **more):
        return self.run(render(self.programs, "pager", template, VARIABLES | more))

    def fails(self, template, **more):
        with pytest.raises(TemplateError) as caught:
            self.render(template, **more)
        return str(caught.value)


@pytest.fixture(scope="module")
def kitchen(vigild_binary, tmp_path_factory):
    from tests.daemon import Daemon, namespaces_work

    if not namespaces_work():
        from tests.conftest import missing

        missing("PID namespaces cannot be made here")
    folder = tmp_path_factory.mktemp("v")
    real = RealWorld(lambda *args, **more: Daemon(vigild_binary, folder, *args, **more), tmp_path_factory.mktemp("c"))
    made = Kitchen(real)
    yield made
    made.control.until(lambda: not made.programs.running, "the end of all renderings")
    real.close()


@pytest.fixture(autouse=True)
def nothing_is_left(kitchen):
    yield
    kitchen.control.until(lambda: not kitchen.programs.running, "the end of the rendering")
    kitchen.control.until(lambda: kitchen.daemon.named("vigil-keeper") == [], "an empty machine")


def test_slack(kitchen):
    made = json.loads(kitchen.render(SLACK))
    assert made == {"text": ":red_circle *website-alive* is *down* on `prod-1`"}
    made = json.loads(kitchen.render(SLACK, status="up"))
    assert made["text"].startswith(":large_green_circle *website-alive* is *up*")


def test_teams(kitchen):
    assert json.loads(kitchen.render(TEAMS)) == {
        "@type": "MessageCard",
        "@context": "https://schema.org/extensions",
        "themeColor": "FF0000",
        "title": "Vigil Alert - website-alive",
        "text": "Check *website-alive* is *down* on `prod-1`.",
        "potentialAction": [
            {
                "@type": "OpenUri",
                "name": "Open Runbook",
                "targets": [{"os": "default", "uri": "https://wiki.example.com/runbooks/website-down"}],
            }
        ],
    }


def test_all_five_variables_and_what_is_not_ascii(kitchen):
    template = '{"a": {{ [check, status, timestamp, labels, info] | tojson }}, "b": "\u00fc\u2603"}'
    made = json.loads(kitchen.render(template, check='we"b\u2603'))
    assert made == {"a": ['we"b\u2603', *list(VARIABLES.values())[1:]], "b": "\u00fc\u2603"}


def test_what_may_be_undefined_is_said_to_be(kitchen):
    assert kitchen.render('{"a": "{{ labels.nope | default("none") }}"}') == b'{"a": "none"}'


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% if %}", "it does not parse: "),
        ('{"a": "{{ labels.nope }}"}', "it uses what is not defined: 'dict object' has no attribute 'nope'"),
        ('{"a": "{{ nope }}"}', "it uses what is not defined: 'nope' is undefined"),
        ("{{ check }}", "it makes no JSON: "),
        ("", "it makes no JSON: "),
        ('{"a": NaN}', "it makes no JSON: "),
        ("[" * 100_000, "it makes JSON that is nested too deep"),
        ('{"a": 1} and more', "it makes no JSON: "),
        ('{"a": "{{ 1 // 0 }}"}', "ZeroDivisionError: "),
        ("{% include 'other' %}", "TypeError: no loader"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "it is nested too deep"),
    ],
)
def test_what_is_wrong_is_said(kitchen, template, why):
    assert kitchen.fails(template).startswith(why)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ ''.__class__ }}", "it may not do that: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "it may not do that: "),
        ("{{ check.__class__ }}", "it may not do that: "),
        ("{{ labels.__class__ }}", "it may not do that: "),
        ("{{ '{0.__class__}'.format(check) }}", "it may not do that: "),
        ("{{ self.__init__.__globals__ }}", "it may not do that: "),
        ("{{ cycler.__init__.__globals__.os.fork() }}", "it may not do that: "),
        ("{{ lipsum.__globals__['os'].popen('id') }}", "it may not do that: "),
        ("{{ labels.update({'a': 'b'}) }}", "it may not do that: "),
        ("{% for a in range(10 ** 9) %}{% endfor %}", "OverflowError: "),
        ("{{ open('/etc/passwd') }}", "it uses what is not defined: 'open' is undefined"),
        ("{{ os.environ }}", "it uses what is not defined: 'os' is undefined"),
    ],
)
def test_what_it_may_not_do(kitchen, template, why):
    assert kitchen.fails(template).startswith(why)


LOOP = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (LOOP, "it takes longer than 2s"),
        ("{{ 9 ** (9 ** 9) }}", "it takes longer than 2s"),
        ("{{ 'x' * 10 ** 10 }}", "it takes too much memory"),
        ("{% set a = 'x' * 10 ** 8 %}{{ [a + a, a + 'y', a + 'z', a + 'b'] }}", "it takes too much memory"),
        ('{"a": "{{ "x" * 1048577 }}"}', "it makes more than 1048576 bytes"),
        ('{"a": "{{ "%200000000d" | format(1) }}"}', "it "),
    ],
)
def test_what_takes_too_much_is_ended_and_control_goes_on_meanwhile(kitchen, template, why):
    began = time.monotonic()
    longest = 0.0

    async def watched():
        nonlocal longest
        running = asyncio.ensure_future(render(kitchen.programs, "pager", template, VARIABLES))
        while not running.done():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
        with pytest.raises(TemplateError) as caught:
            await running
        return str(caught.value)

    assert kitchen.run(watched()).startswith(why)
    assert time.monotonic() - began < 10
    assert longest < 1


def test_a_body_of_a_mebibyte_is_no_trouble(kitchen):
    assert len(kitchen.render('"{{ "x" * 1048574 }}"')) == 1 << 20


def test_descriptors_and_environment_are_not_its_own(kitchen, monkeypatch):
    """What a template that broke out would find: nothing of control, no secret, no way to write a file."""
    import vigil.alert.template as room

    probe = kitchen.daemon.folder / "probe.py"
    probe.write_text(
        "import os, json, resource\ntry:\n    open(TARGET, 'wb', buffering=0).write(b'x'); wrote = True\n".replace(
            "TARGET", repr(str(kitchen.daemon.folder / "written"))
        )
        + "except OSError:\n    wrote = False\n"
        "held = [fd for fd in os.listdir('/proc/self/fd') if int(fd) > 2]\n"
        "print(json.dumps([sorted(os.environ), len(held), wrote, resource.getrlimit(resource.RLIMIT_AS)]))\n"
    )
    monkeypatch.setattr(room, "_PROGRAM", str(probe))
    monkeypatch.setenv("TOKEN", "s3cret")
    names, held, wrote, memory = json.loads(kitchen.render("x"))
    assert set(names) <= {"LC_CTYPE", "LD_LIBRARY_PATH"}
    assert (held, wrote, memory) == (1, False, [256 << 20, 256 << 20])  # the listing itself


def test_a_program_that_lies_or_breaks_gives_the_default_too(kitchen, monkeypatch):
    import vigil.alert.template as room

    fake = kitchen.daemon.folder / "fake.py"
    monkeypatch.setattr(room, "_PROGRAM", str(fake))
    for text, why in (
        ("import os; os.kill(os.getpid(), 9)", "the process that renders it: killed by SIGKILL"),
        ("import os; os._exit(3)", "the process that renders it: exited with code 3"),
        (
            "import os, signal\nsignal.signal(13, signal.SIG_DFL)\nwhile True: os.write(1, b'x' * 65536)",
            "it makes more",
        ),
        ("print('no json')", "it makes no JSON"),
        ("raise SystemExit(1)", "the process that renders it: exited with code 1"),
    ):
        fake.write_text(text)
        assert kitchen.fails("x").startswith(why)
    monkeypatch.setattr(room.sys, "executable", "/nope")
    assert kitchen.fails("x") == "the process that renders it: exec /nope: No such file or directory"


def test_the_alert_is_sent_with_the_default_body_and_a_warning(kitchen, capfd):
    with Receiver() as receiver:
        pages = [
            Alert(name="good", url=receiver.url, on_check=("web",), body_template=SLACK, labels={"cluster": "env:C"}),
            Alert(name="bad", url=receiver.url, on_check=("web",), body_template="{{ nope }}"),
            Alert(name="loop", url=receiver.url, on_check=("web",), body_template=LOOP),
        ]
        loop = kitchen.control.loop
        world = World(*pages, environment={b"C": b"prod-1"}, programs=kitchen.programs, loop=loop)
        world.changed(("web", "down"))
        world.quiet()
        world.close()
    texts = [body for body in receiver.bodies if "text" in body]
    assert texts == [{"text": ":red_circle *web* is *down* on `prod-1`"}]
    assert [body["check"] for body in receiver.bodies if "check" in body] == ["web", "web"]
    warnings = sorted(line.partition(" WARN ")[2] for line in capfd.readouterr().err.splitlines() if " WARN " in line)
    head = "vigil.alert sends the default body: body-template: "
    assert warnings == [
        f"{head}it takes longer than 2s alert=loop",
        f"{head}it uses what is not defined: 'nope' is undefined alert=bad",
    ]


def test_the_body_is_made_once_for_all_attempts(kitchen):
    with Receiver("500 x", "500 x", "200 OK") as receiver:
        keys = {"retry_backoff": (0.01,), "body_template": SLACK, "labels": {"cluster": "a"}}
        page = Alert(name="p", url=receiver.url, on_check=("web",), **keys)
        rendered = []
        world = World(page, programs=kitchen.programs, loop=kitchen.control.loop)
        original = kitchen.programs.run

        async def counted(spec, **more):
            rendered.append(spec)
            return await original(spec, **more)

        class Counting:
            run = staticmethod(counted)

        world.alerts._courier._programs = Counting()
        world.changed(("web", "down"))
        world.quiet()
        world.close()
    assert (len(receiver.got), len(rendered)) == (3, 1)
    assert len({body for _, _, body in receiver.got}) == 1


def test_fifty_at_once_do_not_take_one_anothers_time_away(kitchen, capfd):
    with Receiver() as receiver:
        keys = {"url": receiver.url, "on_check": ("web",), "body_template": SLACK, "labels": {"cluster": "a"}}
        pages = [Alert(name=f"a{n}", timeout=60.0, **keys) for n in range(50)]
        world = World(*pages, programs=kitchen.programs, loop=kitchen.control.loop)
        world.changed(("web", "down"))
        most = 0

        def told():
            nonlocal most
            most = max(most, kitchen.programs.running)
            return len(receiver.got) == 50

        world.until(told, "fifty messages")
        world.quiet()
        world.close()
    assert [body for body in receiver.bodies if "text" not in body] == []
    assert most == 4
    assert " WARN " not in capfd.readouterr().err
