"""Durations, and the words of messages."""

from __future__ import annotations

import pytest

from vigil.model import duration, suggest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("3s", 3.0),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("0", 0.0),
        ("0s", 0.0),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("1h0m0s", 3600.0),
        ("2d", 172800.0),
        ("1m 50s", 110.0),
        (" 3s ", 3.0),
        ("0.1s", 0.1),
        ("300ms", 0.3),
        ("876000h", duration.LONGEST),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, seconds: float) -> None:
    assert duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "ms",
        "5 parsecs",
        "1 s",
        "1s1m",
        "1m1m",
        "1..5s",
        "1.5.5s",
        ".s",
        "1e3s",
        "inf",
        "nan",
        "infinity",
        "5S",
        "٣s",
        "- 5s",
        "--5s",
        "1h-5m",
        "1s,",
        "\x00",
        "1s\n1ms",
        "\u00b2s",
        "1:\u00b2",
        "1s1s",
        "and",
        "9" * 5000 + "s",
    ],
)
def test_what_is_no_duration_is_refused_with_examples_on_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration \(write [0-9.a-z, ]+\)$") as caught:
        duration.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(
            ("5 sec", "5s"),
            ("30 Seconds", "30s"),
            ("5m30", "5m30s"),
            ("1h 30", "1h30m"),
            ("1,5s", "1.5s"),
            ("5S", "5s"),
        ),
        *(("00:05:00", "5m"), ("1:30", "1m30s"), ("PT5M", "5m"), ("P1DT2H", "1d2h"), ("30s1m", "1m30s")),
        *(
            ("1 hour and 5 min", "1h5m"),
            ("'5s'", "5s"),
            ("2 weeks", "500ms, 3s, 1m30s, 1h"),
            ("1s1s", "500ms, 3s, 1m30s, 1h"),
        ),
    ],
)
def test_what_was_probably_meant_is_proposed(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match="is not a duration") as caught:
        duration.parse(text)
    assert str(caught.value) == f'"{text}" is not a duration (write {meant})'
    duration.parse(meant.split(",")[0])


@pytest.mark.parametrize(
    ("text", "meant"), [("@hourly", "1h"), ("daily", "24h"), ("*/7 * * * *", "7m"), ("0 3 * * 1-5", "5m")]
)
def test_a_schedule_is_told_that_there_are_none(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match="schedules are unknown here") as caught:
        duration.parse(text)
    assert str(caught.value).endswith(f"write {meant})")


def test_a_number_without_unit_is_refused_and_told_its_units() -> None:
    with pytest.raises(ValueError, match=r'"5" has no unit \(write 5s, 5ms or 5m\)'):
        duration.parse("5")


def test_a_negative_duration_is_refused_as_negative() -> None:
    with pytest.raises(ValueError, match='"-5s" is negative'):
        duration.parse("-5s")


def test_a_duration_that_would_overflow_a_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        duration.parse("876001h")


@pytest.mark.parametrize(
    "text", ["500ms", "3s", "1m30s", "1h", "1s500ms", "100us", "0s", "876000h", "48h", "1h1m1s1ms1us"]
)
def test_what_a_plan_spells_is_spelled_the_same_again(text: str) -> None:
    assert duration.spell(duration.parse(text)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (12.9, "12s"), (110, "1m 50s"), (3600, "1h 0m"), (7199, "1h 59m"), (273600, "3d 4h"), (-1, "0s")],
)
def test_a_brief_duration_has_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration.brief(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(8143.9, "0d 2h 15m 43s"), (0, "0d 0h 0m 0s"), (90061, "1d 1h 1m 1s")])
def test_an_uptime_has_all_units(seconds: float, text: str) -> None:
    assert duration.full(seconds) == text


@pytest.mark.parametrize(
    ("word", "known", "right"),
    [
        ("kil-delay", ["kill-delay", "umask"], "kill-delay"),
        ("Kill_Delay", ["kill-delay"], "kill-delay"),
        ("wbe", ["db", "web"], "web"),
        ("sartup", ["startup"], "startup"),
        ("comand", ["command", "environment"], "command"),
        ("enviroment", ["command", "environment"], "environment"),
        ("tset", ["rest", "test"], "test"),
        ("ab", ["cd"], None),
        ("a", ["b"], None),
        ("webserver", ["database"], None),
        ("anything", [], None),
        ("", ["a"], None),
    ],
)
def test_the_nearest_word_is_proposed_only_where_it_is_near(word: str, known: list[str], right: str | None) -> None:
    assert suggest.nearest(word, known) == right


def test_a_hint_can_be_put_behind_any_message() -> None:
    assert suggest.hint("wbe", ["web"]) == ' (did you mean "web"?)'
    assert suggest.hint("xyz", ["web"]) == ""


def test_a_quoted_text_stays_on_one_line_and_short() -> None:
    assert suggest.quote("plain ä") == '"plain ä"'
    assert suggest.quote("a\nb\0\x1b[31m\ud800") == r'"a\nb\x00\x1b[31m\ud800"'
    assert len(suggest.quote("x" * 10_000)) == 62
