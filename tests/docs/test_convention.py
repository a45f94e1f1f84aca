"""The convention of the pages holds: no block escapes, and what is shown is compared with what is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Block, PageError, blocks, matches


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```bash\nls\n```\n", "nobody tests a block of bash"),
        ("```\nls\n```\n", "nobody tests a block of no language"),
        ("```console\n$ ls\n", "has no end"),
        ("```text\nwords\n```\n", "names in a comment"),
        ("- one\n  ```console\n  $ ls\n  ```\n", "a fence begins its line"),
        ("words\n\n    $ ls\n", "fenced block of its own"),
        ("words\n\n\t$ ls\n", "fenced block of its own"),
        ("~~~\n$ ls\n~~~\n", "fenced block of its own"),
        ("<pre>$ ls</pre>\n", "fenced block of its own"),
    ],
)
def test_what_no_test_would_look_at_is_refused(text: str, why: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(PageError, match=why):
        blocks(page)


def test_the_commands_of_a_block() -> None:
    block = Block(
        "page.md:10",
        "console",
        "$ one\n1\n\n1a\n$ two \\\n    more\n$ cat <<EOF\n$ no command\nEOF\n$ logs -f\n3\n^C\n",
    )
    found = [(example.where, example.command, example.output, example.interrupted) for example in block.examples()]
    assert found == [
        ("page.md:10", "one", ["1", "", "1a"], False),
        ("page.md:14", "two \\\n    more", [], False),
        ("page.md:16", "cat <<EOF\n$ no command\nEOF", [], False),
        ("page.md:19", "logs -f", ["3"], True),
    ]
    with pytest.raises(PageError, match=r"page.md:10: .*begins with a command"):
        Block("page.md:10", "console", "no command\n").examples()


@pytest.mark.parametrize(
    ("language", "first", "path"),
    [
        ("yaml", "# /etc/vigil/layers/10-app.yaml", "/etc/vigil/layers/10-app.yaml"),
        ("yaml", "# job/10-job.yaml", "job/10-job.yaml"),
        ("text", "# app.env", "app.env"),
        ("dockerfile", "# Containerfile", "Containerfile"),
        ("yaml", "# the plan of the shop", None),
        ("yaml", "services:", None),
        ("console", "$ ls", None),
    ],
)
def test_a_block_that_is_a_file(language: str, first: str, path: str | None) -> None:
    assert Block("page.md:1", language, f"{first}\n").path == path


TABLE = ["Service  Startup  Status  PID  Uptime  Restarts", "web      enabled  active  12   2s      0"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([], []),
        (["one"], ["one"]),
        (["one", "two", "three"], ["one", "...", "three"]),
        (["one 17 three"], ["one ... three"]),
        (["2026-11-25 01:02:03.456 [web] [stdout] hello"], ["2026-03-21 12:00:00.123 [web] [stdout] hello"]),
        (['{"seq":17,"time":"2026-11-25T01:02:03.456789Z"}'], ['{"seq":3,"time":"2026-03-21T12:00:00.123456Z"}']),
        (["web: started pid=1234"], ["web: started pid=7"]),
        (
            [
                "Service  Startup  Status  PID    Uptime  Restarts",
                "web      enabled  active  12345  1m 2s   0",
            ],
            TABLE,
        ),
    ],
)
def test_what_varies_may_vary(given: list[str], shown: list[str]) -> None:
    assert matches(given, shown)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["one"], []),
        ([], ["one"]),
        ([], ["..."]),
        (["one", "three"], ["one", "...", "three"]),
        (["two"], ["one"]),
        (["one", "two"], ["one"]),
        (["one  two"], ["one two"]),
        (["2026-11-25 01:02:03.456 [web] [stderr] hello"], ["2026-03-21 12:00:00.123 [web] [stdout] hello"]),
        (["soon [web] [stdout] hello"], ["2026-03-21 12:00:00.123 [web] [stdout] hello"]),
        ([TABLE[0], "web      enabled  active  12   2s      1"], TABLE),
        ([TABLE[0], "web      enabled  active  -    2s      0"], TABLE),
        ([TABLE[0], "web      enabled  active  12   -       0"], TABLE),
        ([TABLE[0], "web      enabled  error   12   2s      0"], TABLE),
    ],
)
def test_what_does_not_may_not(given: list[str], shown: list[str]) -> None:
    assert not matches(given, shown)
