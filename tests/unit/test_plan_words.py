"""Command strings become words as in a POSIX shell."""

from __future__ import annotations

import random
import subprocess

import pytest

from tests.unit.plan_world import layer, plan, problem, problems, warning
from vigil.plan import words


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("cmd a b", ("cmd", "a", "b")),
        ("  cmd\t a \n b ", ("cmd", "a", "b")),
        ("sh -c 'echo \"$X\" | tr a b'", ("sh", "-c", 'echo "$X" | tr a b')),
        ("cmd \"a b\" 'c d'", ("cmd", "a b", "c d")),
        ("cmd a'b'\"c\"d", ("cmd", "abcd")),
        ("cmd ''", ("cmd", "")),
        (r"cmd a\ b \' \\", ("cmd", "a b", "'", "\\")),
        (r'cmd "\a \" \\ \$ \`"', ("cmd", '\\a " \\ $ `')),
        (r"cmd '\a'", ("cmd", r"\a")),
        ("cmd a\\\nb \\\n c", ("cmd", "ab", "c")),
        ('cmd "a\\\nb"', ("cmd", "ab")),
        ("cmd a#b '#c' \\#d", ("cmd", "a#b", "#c", "#d")),
        ("cmd $HOME *.c ~ a;b >x", ("cmd", "$HOME", "*.c", "~", "a;b", ">x")),
        ("cmd a # rest ' of it", ("cmd", "a")),
        ("cmd a # rest\nb", ("cmd", "a", "b")),
        ("cmd äöü", ("cmd", "äöü")),
    ],
)
def test_a_command_is_split_into_words(text: str, argv: tuple[str, ...]) -> None:
    assert words.command(text)[0] == argv


def test_words_are_those_of_the_shell_of_this_machine() -> None:
    dice = random.Random(7)
    texts = ["".join(dice.choices("ab'\"\\ \t#[$", k=dice.randrange(1, 12))) for _ in range(150)]
    for text in texts:
        # In "for NAME in WORDS" the shell splits WORDS and prints what it made of them. It would expand a $, we do not.
        quoted = text.replace("$", "%")
        script = f"for w in {quoted}\ndo printf '%s|' \"$w\"; done"
        shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=10, check=False)
        try:
            ours = "".join(word.text + "|" for word in words.split(quoted).words)
        except ValueError:
            assert shell.returncode != 0, quoted
        else:
            assert (shell.returncode, shell.stdout) == (0, ours), quoted


@pytest.mark.parametrize(
    ("text", "words_of_message"),
    [
        ("cmd 'a", "has a ' that is not closed"),
        ('cmd "a', 'has a " that is not closed'),
        ('cmd "a\\"', 'has a " that is not closed'),
        ("cmd a\\", "ends in a backslash that quotes nothing"),
        ("'' a", "begins with an empty word"),
        ("", "is empty"),
        ("  \t", "is empty"),
        ("# all of it", "is nothing but a comment"),
    ],
)
def test_a_command_that_cannot_be_split_is_refused(text: str, words_of_message: str) -> None:
    with pytest.raises(ValueError, match=words_of_message):
        words.command(text)


def test_optional_arguments_in_brackets_are_arguments() -> None:
    assert words.command("cmd --a [ --b 'c d' ]")[0] == ("cmd", "--a", "--b", "c d")
    assert words.command("cmd [ ]")[0] == ("cmd",)


def test_brackets_that_are_quoted_or_the_program_itself_are_left_alone() -> None:
    assert words.command("cmd '[' a ']'")[0] == ("cmd", "[", "a", "]")
    assert words.command("[ -e /file ]")[0] == ("[", "-e", "/file", "]")
    assert words.command("cmd [a] a[ ]b")[0] == ("cmd", "[a]", "a[", "]b")


@pytest.mark.parametrize("text", ["cmd [ a", "cmd a ]", "cmd [ a ] b", "cmd [ [ a ] ]", "cmd ] a ["])
def test_brackets_that_do_not_pair_at_the_end_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="brackets"):
        words.command(text)


def test_a_list_is_taken_as_it_is() -> None:
    made = plan(layer("command: [prog, 'a b', '#c', '[', '$d', '', 5, no, \"e'\"]"))
    assert made.services["web"].command == ("prog", "a b", "#c", "[", "$d", "", "5", "no", "e'")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("''", "4:14: services.web.command: is empty"),
        ("[]", "4:14: services.web.command: is an empty list"),
        ("['', a]", "4:14: services.web.command: begins with an empty word"),
        ("[a, ~]", "4:18: services.web.command: an item is empty"),
        ("[a, [b]]", "4:18: services.web.command: is a list, not a text (write one, in quotes if need be)"),
        ("{a: b}", "4:14: services.web.command: is a mapping, not a text or a list of texts"),
        ("run 'a", "4:18: services.web.command: has a ' that is not closed"),
        ('"run \'a"', "4:19: services.web.command: has a ' that is not closed"),
        (r'"run \"a"', '4:14: services.web.command: has a " that is not closed'),
        ("run [ a ] b", "4:22: services.web.command: has brackets"),
        ("'# a'", "4:15: services.web.command: is nothing but a comment"),
        ("# a", "4:13: services.web.command: is nothing but a comment"),
        ("#a", "4:13: services.web.command: is nothing but a comment"),
        ("", "4:13: services.web.command: is missing, and the service is enabled"),
    ],
)
def test_a_command_that_is_none_is_refused_where_it_stands(command: str, message: str) -> None:
    (found,) = problems(layer("startup: enabled", f"command: {command}"))
    assert found.startswith(f"/l/0.yaml:{message}")


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("command: echo a #b", '"#b"'),
        ("command: echo a # b", '"# b"'),
        ("command: 'echo a #b'", '"#b"'),
        ("command: 'echo a  # b'", '"# b"'),
        ("command: [echo, a #b\n      , c]", '"#b"'),
        ("summary: a #b", '"#b"'),
        ("environment: {A: a #b\n      }", '"#b"'),
    ],
)
def test_text_that_is_cut_off_as_a_comment_is_a_warning(line: str, cut: str) -> None:
    made = plan(layer(*(["command: x"] if "command" not in line else []), line))
    (found,) = map(str, made.warnings)
    assert f"{cut} is cut off as a comment" in found
    assert found.startswith("/l/0.yaml:")


@pytest.mark.parametrize(
    "line",
    [
        "kill-delay: 3s #comment",
        "stop-signal: SIGTERM      # default; can be SIGUSR1",
        "summary: text # comment",
        "summary: 'a #b'",
        "summary: a#b",
        "nice: 3 #4",
        "command: |\n      # what it is\n      run it",
        "command: run   # the program",
        "command: 'run' #the program",
        "command: [run, a]  #b",
    ],
)
def test_a_comment_that_is_one_is_no_warning(line: str) -> None:
    assert plan(layer(*(["command: x"] if "command" not in line else []), line)).warnings == ()


@pytest.mark.parametrize(
    ("command", "odd", "message"),
    [
        ("cd /app && run", "cd", "is a word of the shell, and no program (write sh -c 'cd /app && run' if one should)"),
        ("run && other", "&&", "is nothing special here: no shell reads the command (write sh -c 'run && other'"),
        ("run; other", ";", "is nothing special here"),
        ("run >/dev/null", ">/dev/null", "is nothing special here"),
        ("run 2>&1", "2>&1", "is nothing special here"),
        ("run --port $PORT", "$PORT", "is taken as it stands: no shell reads the command"),
        ('run "${HOME}"', '${HOME}"', "is taken as it stands"),
        ("run 'a'$(b)", "$(b)", "is taken as it stands"),
        ("run `b`", "`b`", "is taken as it stands"),
        ("~/run", "~/run", "is taken as it stands"),
        ("run /etc/*.conf", "/etc/*.conf", "is taken as it stands"),
        ("A=b run", "A=b", "is taken as the program's name (write environment: {A: ...})"),
        ("run {{a}}", "{{a}}", "looks like a template that was not filled in"),
        ("run \u201ca\u201d", "\u201c", "is no quote here"),
        ("run \\\n      --a", "run \\", "a backslash before a blank makes it a part of the next word"),
        (r'"grep \bx"', r'"grep \bx"', "holds the control character U+0008"),
    ],
)
def test_what_only_a_shell_would_act_upon_is_a_warning(command: str, odd: str, message: str) -> None:
    (found,) = plan(layer(f"command: {command}")).warnings
    assert message in found.message
    assert found.excerpt[found.column - 1 :][: found.width or len(odd)] == odd


@pytest.mark.parametrize(
    "command",
    [
        *("sh -c 'a && b $C > d'", 'bash -c "exec run --port $PORT"', '/usr/bin/env sh -c "a $B"', "run '$A' '&&' '|'"),
        *(r"run \$A \;", "run '>' a", "run a>b a&b x|y", "run $ $1 a$ 100%", "find /a -name '*.log'", "run -l *:80"),
        *("run --set a=b", "./a=b", "run a~ b/~", "awk '{print $1}'", "run --json '{{}}'", "run -> x", "run a=$"),
        *("[ -e /a ]", "run a;b", "run =>", "curl http://a/?b=c&d=e", "nginx -g 'daemon off;'"),
    ],
)
def test_what_a_program_takes_as_it_is_is_no_warning(command: str) -> None:
    assert plan(layer(f"command: {command}" if command[0] != "[" else f"command: '{command}'")).warnings == ()


def test_a_quote_that_is_open_because_of_a_comment_says_so() -> None:
    (found,) = problems(layer("command: sh -c 'echo # it'"))
    assert "has a ' that is not closed" in found
    assert 'YAML cut off "# it\'" as a comment' in found


def test_a_warning_names_file_line_and_field() -> None:
    assert warning("summary: a #b").startswith("/l/0.yaml:4:16: services.web.summary: ")
    assert (
        problem("summary: [a]")
        == "/l/0.yaml:4:14: services.web.summary: is a list, not a text (write one, in quotes if need be)"
    )
