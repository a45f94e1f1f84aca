"""Whatever a layer holds, loading it gives a plan or problems, never anything else."""

from __future__ import annotations

import random
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest

from vigil.model.api import Problem
from vigil.model.errors import PlanError
from vigil.plan import Sources, accounts, graph, load, tree
from vigil.plan.fields import KINDS, fields_of
from vigil.plan.merge import merge
from vigil.plan.problems import Problems, shown
from vigil.plan.services import outside_of
from vigil.plan.types import Rights

BAD = Path(__file__).parents[1] / "plans" / "bad"
VALUES = (
    *("x", "", "~", "null", "[]", "{}", "[a]", "{a: b}", "5s", "-1", "0", "1e9", "'it'", '"q\\n"', "*a", "&a x", "<<"),
    *("&b [*b]", "|\n   t", "infinity", "none", "[HUP]", "notify", "# c", "a #b", "!!str 5", "!x y", "true", "yes"),
    *("{check: k}", "/x", "'[ a ]'", "a [ b ]", '"\\0"', '"\\ud800"', "'\n'", "ä", "\U0001f600", "[~]", "[[a]]"),
    *("{? [a] : b}", "{nofile: 1:2}", "a,b", "%", "@", "`", "-", "- a", "?", "'", '"', "\t", "[a, b, c]", "enabled"),
)
GOOD = {
    "summary": "x",
    "command": "x 'y'",
    "after": "[a]",
    "requires": "[b]",
    "before": "[c]",
    "kill-delay": "3s",
    "environment": "{A: b}",
    "stop-signal": "USR1",
    "nice": "3",
    "umask": "022",
    "limits": "{nofile: 5}",
    "user-id": "0",
    "env-file": "/e",
    "type": "oneshot",
    "headers": "{A: b}",
    "level": "alive",
    "access": "read",
}
REQUIRED = {
    "services": [()],
    "checks": [
        ("tcp: {port: 1}",),
        ("http: {url: 'http://x', headers: {A: b}}",),
        ("exec: {command: x, service_context: a, user-id: 0}",),
    ],
    "alerts": [("url: env:U", "on-check: [k]")],
    "identities": [("access: read", "local: {}"), ("access: read", "tls: {ca-cert: /c}")],
}
PEM = b"-----BEGIN CERTIFICATE-----\n" + b64encode(b"\x30\x7e\x30" + bytes(125)) + b"\n-----END CERTIFICATE-----\n"
BITS = (
    *(b":", b"\n", b" ", b"\t", b"#", b"'", b'"', b"- ", b"&a ", b"*a", b"\r\n", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(b"---\n", b"{", b"[", b"}", b"]", b",", b"|", b">", b"!", b"%", b"<<: ", b"\xff", b"\0"),
)


def _generated(dice: random.Random, wild: float) -> str:
    """A layer. ``wild`` 0 is one that is right, but perhaps for cycles."""
    lines = []
    for kind in KINDS:
        if kind != "services" and dice.random() < 0.6:
            continue
        lines.append(f"{kind}:")
        for name in dice.sample(["d", "e", "f"], 2) + (
            ["vigild", "a b", "~", "'1'", "<<"] if wild > dice.random() else []
        ):
            lines.append(f"  {name}:" + (f" &s{dice.randrange(3)}" if wild > dice.random() else ""))
            required = dice.choice(REQUIRED[kind])
            taken = [line.partition(":")[0] for line in required]
            keys = [key for key in (*fields_of(kind), "override_mode", "unknown") if key not in taken]
            for key in dice.sample(keys, min(5, len(keys))):
                if key in GOOD and wild < dice.random():
                    lines.append(f"    {key}: {GOOD[key]}")
                elif wild > dice.random():
                    lines.append(f"    {key}: {dice.choice(VALUES)}")
            if wild > dice.random():
                lines.append(f"    <<: *s{dice.randrange(3)}")
            lines.extend(f"    {line}" for line in required)
            if lines[-1] == f"  {name}:":
                lines.append("    summary: x")
    return "\n".join(lines)


def _mutated(dice: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(dice.choice((0, 0, 1, 2, 4))):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0:
                del data[at : at + dice.randrange(1, 20)]
            case 1:
                data[at:at] = dice.choice(VALUES).encode()
            case 2:
                data[at:at] = data[dice.randrange(len(data) + 1) :][: dice.randrange(40)]
            case _:
                data[at:at] = dice.choice(BITS)
    return bytes(data)


def random_sources(dice: random.Random, wild: float) -> Sources:
    """Two or three layers, and all that they name. ``wild`` 0 is a plan that is right, but perhaps for cycles."""
    texts = [_generated(dice, wild).encode() for _ in range(dice.randrange(1, 3))]
    if wild:
        texts = [_mutated(dice, text) for text in texts]
    texts.insert(0, b"services: {a: {}, b: {}, c: {}}\nchecks: {k: {tcp: {port: 1}}}")
    layers = tuple((f"/l/{number}.yaml", text) for number, text in enumerate(texts))
    wanted = outside_of(merge(layers, Problems()))
    return Sources(
        directory="/l",
        layers=layers,
        env_files=tuple((path, b"A=1") for path in wanted.env_files),
        certificates=tuple((path, PEM) for path in wanted.certificates),
        accounts=accounts.resolve(wanted.accounts, accounts.Own(0, 0, may_set_uid=True, may_set_gid=True)),
    )


@pytest.mark.parametrize("parser", ["libyaml", "python"])
def test_mistakes_with_more_mistakes_in_them_make_a_plan_or_problems(
    parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad plans that people write, mutated: what guesses at the cause of a mistake meets texts that fit nothing."""
    if parser == "python":
        monkeypatch.setattr(tree, "_parser", tree._python_parser)
    dice = random.Random(parser)
    bad = 0
    for path in sorted(BAD.rglob("*.y*ml")):
        for _ in range(4 if parser == "libyaml" else 1):
            content = _mutated(dice, path.read_bytes())
            mine = Rights(nice=0, oom_score_adj=0, hard=((7, 100),), files=1000)
            try:
                load(Sources("/l", layers=(("/l/0.yaml", content),), rights=mine), check=dice.random() < 0.5)
            except PlanError as error:
                bad += 1
                for one in error.problems:
                    assert str(one).isprintable(), content
                    _check_excerpt(one, content)
    assert bad > 100


def _check_excerpt(problem: Problem, content: bytes) -> None:
    """What is shown is a line of the file, and the mark stands in it or right after it."""
    whole = shown(problem)
    assert all(line.isprintable() for line in whole.split("\n")), whole
    assert whole.count("\n") == (2 if problem.excerpt else 0), whole
    if problem.excerpt:
        assert problem.excerpt.encode() in content.replace(b"\r\n", b"\n")
        assert 1 <= problem.column <= len(problem.excerpt) + 1
        assert 0 <= problem.width <= len(problem.excerpt) - problem.column + 1


@pytest.mark.parametrize("parser", ["libyaml", "python"])
@pytest.mark.parametrize("seed", range(4))
def test_random_layers_make_a_plan_or_problems(parser: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if parser == "python":
        monkeypatch.setattr(tree, "_parser", tree._python_parser)
    dice = random.Random(seed)
    good = bad = 0
    for _ in range(400 if parser == "libyaml" else 100):
        wild = dice.choice((0.0, 0.05, 0.3))
        sources = random_sources(dice, wild)
        layers = sources.layers
        try:
            plan = load(sources, check=dice.random() < 0.2)
        except PlanError as error:
            bad += 1
            found = error.problems
            assert found, layers
        else:
            good += 1
            found = plan.warnings
            order = graph.order(graph.needs(plan))
            assert all(order[need][1] < order[name][1] for name, needs in graph.needs(plan).items() for need in needs)
            msgspec.msgpack.encode(plan)
        for one in found:
            assert str(one).isprintable(), layers
            assert one.file.startswith("/l"), layers
            _check_excerpt(one, dict(layers).get(one.file, b""))
    assert good > 10
    assert bad > 10
