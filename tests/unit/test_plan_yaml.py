"""From bytes to nodes: what YAML a layer may be, and what is said of one that is none."""

from __future__ import annotations

import time

import pytest

from tests.unit.plan_world import layer, plan, problems, service
from vigil.plan import tree
from vigil.plan.problems import Problems


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers: libyaml's, and the one that is used where libyaml is missing."""
    if request.param == "python":
        monkeypatch.setattr(tree, "_parser", tree._python_parser)
    return str(request.param)


def test_libyaml_is_what_reads_plans_here() -> None:
    assert type(tree._parser("")).__name__ == "CParser"


@pytest.mark.usefixtures("parser")
def test_string_fields_take_the_text_as_it_was_written() -> None:
    environment = service(
        "environment:",
        "  A: 0755",
        "  B: 12:30",
        "  C: no",
        "  D: 1.50",
        "  E: 2026-01-02",
        "  F: 'it''s'",
        '  G: "a\\tb"',
        "  H: true",
        "  I: 'null'",
        "  J: !!str ~",
        "  K: 0x1F",
        "  L: =",
        "  M: ''",
    ).environment
    assert environment == {
        "A": "0755",
        "B": "12:30",
        "C": "no",
        "D": "1.50",
        "E": "2026-01-02",
        "F": "it's",
        "G": "a\tb",
        "H": "true",
        "I": "null",
        "J": "~",
        "K": "0x1F",
        "L": "=",
        "M": "",
    }


@pytest.mark.usefixtures("parser")
def test_anchors_aliases_and_merge_keys_work() -> None:
    made = plan("""
        services:
          one: &one
            command: run
            kill-delay: 1s
            environment: &vars {A: a}
          two:
            <<: *one
            kill-delay: 2s
          three:
            kill_delay: 3s
            <<: [{nice: 3}, *one, {nice: 4, umask: 077}]
          four:
            command: run
            environment: *vars
        """)
    services = made.services
    assert services["two"].command == ("run",)
    assert (services["one"].kill_delay, services["two"].kill_delay, services["three"].kill_delay) == (1.0, 2.0, 3.0)
    assert (services["three"].nice, services["three"].umask) == (3, 0o77)
    assert services["four"].environment == {"A": "a"}


@pytest.mark.usefixtures("parser")
def test_a_duplicate_key_is_an_error_with_both_lines() -> None:
    assert problems(layer("command: a", "kill-delay: 1s", "command: b")) == (
        '/l/0.yaml:5:5: services.web.command: duplicate key "command" (it is in line 3 already)',
    )
    assert "duplicate key" in problems("services: {}\nservices: {}")[0]
    assert "duplicate key" in problems(layer("environment:", "  A: 1", "  A: 2"))[0]
    assert "duplicate key" in problems(layer("<<: {nice: 1}", "<<: {nice: 2}"))[0]


def test_kebab_and_snake_spell_the_same_key_and_both_are_a_duplicate() -> None:
    assert service("kill_delay: 3s", "working_dir: /tmp").kill_delay == 3.0
    assert problems(layer("kill-delay: 1s", "kill_delay: 2s")) == (
        (
            '/l/0.yaml:4:5: services.web.kill-delay: duplicate key: "kill_delay" and "kill-delay" (line 3) are the same'
            " (leave out one)"
        ),
    )


def test_names_of_services_and_variables_that_differ_by_a_dash_are_two_names() -> None:
    made = plan("services: {a-b: {command: x, environment: {A-B: 1, A_B: 2}}, a_b: {command: y}}")
    assert list(made.services) == ["a-b", "a_b"]
    assert made.services["a-b"].environment == {"A-B": "1", "A_B": "2"}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        ("services:\n\tweb: x\n", "2:1", "a tab where only spaces may stand"),
        ('services:\n  web: {command: "x\n', "2:18", "this quote is never closed"),
        ("services:\n  web: 'x\n", "2:8", "this quote is never closed"),
        (
            "services:\n  web: a: b\n",
            "2:9",
            """a ": " in a text without quotes makes a key (quote the whole: 'a: b')""",
        ),
        ("services: [a\n", "1:11", 'this "[" is not closed'),
        ("services: {a: b\n", "1:11", 'this "{" is not closed'),
        ("services: [a b: c: d]\n", "1:18", 'expected "," or "]"'),
        ("summary: @x\n", "1:10", 'a text cannot begin with "@"'),
        ("summary: - b\n", "1:10", "here"),
        ("- a\nb: c\n", "2:1", "expected the next"),
        ("a: 1\n  b: 2\n", "2:3", '"b" is indented deeper than "a" above it'),
        ("a:\n    b: 1\n  c: 2\n", "3:3", "this line begins after 2 blanks, and the keys above after 4 or 0"),
        ("a:b\nc: d\n", "1:2", 'a ":" makes a key only with a blank behind it (write a: b)'),
        ("a: 1\nb\nc: d\n", "2:1", 'this is no key: a ":" is missing'),
        ("a: {{ b }}\n", "1:4", '"{{" belongs to a template that was not filled in'),
        ("a: b\n{% if c %}\n", "2:1", '"{%" belongs to a template that was not filled in'),
        ("# of\n[program:web]\ncommand=x\n", "2:1", "a section of an INI or TOML file"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n", "2:1", "a conflict of version control"),
        ("a: *.log\n", "1:4", 'a text cannot begin with "*"'),
        ("a: */5 * * * *\n", "1:4", "a schedule of cron"),
        ("a: {b: !c}\n", "1:8", 'a text cannot begin with "!"'),
        ("a: {b: 'c',, d: e}\n", "1:12", "expected a value here"),
        ('summary: "\\q"\n', "1:1", "an escape that double quotes do not know"),
        ("summary: 'it's'\n", "1:14", "text goes on after the closing quote (inside single quotes write '' for one)"),
        ('summary: "x\ndescription: "y"\n', "1:10", "this quote is closed only in line 2"),
        ("summary: a #b\n  c\n", "2:3", "what follows # in line 1 is a comment"),
        ("summary: a\x07\n", "1:11", "U+0007 is not allowed"),
        ("summary: *nobody\n", "1:10", 'alias "*nobody" has no anchor'),
        ("a: &loop [*loop]\n", "1:11", 'alias "*loop" is part of what it stands for'),
        ("a: &loop {<<: *loop}\n", "1:15", 'alias "*loop" is part of what it stands for'),
        ("a: 1\n---\nb: 2\n", "2:1", "a second document begins here"),
        ("a: {<<: 3}\n", "1:9", '"<<" takes a mapping'),
        ("? [a]\n: b\n", "1:3", "a key is a list"),
        ("~: b\n", "1:1", "a key is empty"),
        ("a: !secret b\n", "1:4", 'tag "!secret" means nothing here'),
        ("a: !!python/name:os.system b\n", "1:4", "means nothing here"),
        ('a: "\\0"\n', "1:4", "NUL"),
        ("%YAML 9.1\n---\na: b\n", "1:1", "version"),
    ],
)
def test_what_is_no_plan_of_yaml_is_refused_with_line_and_column(content: str, place: str, words: str) -> None:
    found = [line for line in problems(content) if words in line]
    assert len(found) == 1, problems(content)
    line, column = place.split(":")
    assert found[0].startswith(f"/l/0.yaml:{line}:")
    if column != "1":  # the two parsers do not agree on the column of an escape; all others are exact
        assert found[0].startswith(f"/l/0.yaml:{place}:")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: \xff\n", "/l/0.yaml:1:4: byte 0xff is not valid UTF-8 (save the file as UTF-8)"),
        (b"a: x\nb: \xc3\xa4\xe2\x82\n", "/l/0.yaml:2:5: byte 0xe2 is not valid UTF-8 (save the file as UTF-8)"),
        ("a: b\n".encode("utf-16"), "/l/0.yaml:1:1: is UTF-16 (save it as UTF-8)"),
    ],
)
def test_a_file_that_is_not_utf8_is_refused_at_its_byte(content: bytes, problem: str) -> None:
    assert problems(content) == (problem,)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "---\n", "---\n...\n", "~\n", "services:\n", "\ufeff"])
def test_an_empty_file_is_an_empty_layer(content: str) -> None:
    assert plan(content, layer("command: x")).services.keys() == {"web"}


@pytest.mark.parametrize("content", ["- a\n", "word\n", "'services: {}'\n"])
def test_a_file_that_is_no_mapping_is_refused(content: str) -> None:
    assert "not a mapping" in problems(content)[0]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    content = b"\xef\xbb\xbf" + layer("command: run #x", "kill-delay: soon").replace("\n", "\r\n").encode()
    assert problems(content)[0].startswith("/l/0.yaml:4:17: services.web.kill-delay")
    made = plan(content.replace(b"soon", b"1s  # 1 is enough"))
    assert made.services["web"].kill_delay == 1.0
    assert str(made.warnings[0]).startswith('/l/0.yaml:3:18: services.web.command: "#x" is cut off')


def test_columns_count_characters_not_bytes() -> None:
    assert problems("services: {web: {summary: äöü, kill-delay: x}}")[0].startswith("/l/0.yaml:1:44:")


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("form", ["[{0}, {0}, {0}]", "{{<<: [{0}, {0}], x: {0}, y: {0}, z: {0}}}"])
def test_aliases_that_explode_are_refused_at_once(form: str) -> None:
    lines = ["a0: &a0 {x: y}"]
    lines += [f"a{n}: &a{n} " + form.format(f"*a{n - 1}") for n in range(1, 60)]
    started = time.monotonic()
    found = problems("\n".join(lines))
    assert time.monotonic() - started < 5
    assert "more than 100000 nodes once its aliases are followed" in found[0]


def test_a_file_of_too_many_nodes_is_refused_and_one_of_just_enough_is_not() -> None:
    def keys(count: int) -> bytes:
        return b"services:\n  web:\n    command: x\n    environment:\n" + b"".join(
            b"      K%d: v\n" % number for number in range(count)
        )

    assert len(plan(keys(49_990)).services["web"].environment) == 49_990
    assert "more than 100000 nodes" in problems(keys(50_000))[0]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("content", ["[" * 100_000, "[\n" * 5_000, "{a: " * 5_000, "- " * 5_000 + "x"])
def test_nesting_without_end_is_refused(content: str) -> None:
    assert "nested" in problems(content)[0]


def test_half_a_surrogate_is_refused_by_the_parser_that_lets_it_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_parser", tree._python_parser)
    assert "half a surrogate" in problems('summary: "\\ud800"')[0]


def test_both_parsers_make_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"""
a: &a [1, 'x', "y", z]
b: {<<: {p: q}, r: *a}   # comment
c: |
  block # no comment
d: e #f
g:
h: ~
i: >-
  folded
  text
? j
: - k
  - l
"""
    first = tree.parse("f", content, Problems())
    monkeypatch.setattr(tree, "_parser", tree._python_parser)
    assert first is not None
    assert tree.parse("f", content, Problems()) == first


@pytest.mark.parametrize(
    "text",
    [
        "services:\n" + "".join(f"  s{n}: {{after: [t{n}], nice: x, kil: 3}}\n" for n in range(5_000)),
        "services:\n" + "".join(f"  s{n}: {{after: [s{n ^ 1}]}}\n" for n in range(10_000)),
        "services:\r  a:\r    environment:\r" + "".join(f"      K{n}: v #x\r" for n in range(20_000)),
        "services:\n  a:\n" + "".join(f"    kil{n}: 3\n" for n in range(20_000)),
    ],
    ids=["wrong names", "cycles", "comments", "unknown keys"],
)
def test_a_file_full_of_mistakes_is_judged_in_seconds(text: str) -> None:
    started = time.monotonic()
    assert problems(text, check=True) if "\r" not in text else plan(text).warnings
    assert time.monotonic() - started < 10
