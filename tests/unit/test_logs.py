"""The logs as control reads them: merged, rendered, followed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.unit.log_writer import FORWARD, STDERR, Writer
from vigil.model import api

if TYPE_CHECKING:
    from vigil.logs import Follower, LogStore

SECOND = 1_000_000_000
NOON = 1_774_094_400 * SECOND  # 2026-03-21T12:00:00Z


class World:
    """A store, and a logger that does what the test says."""

    def __init__(self, testmod: ModuleType, lines: int, size: int) -> None:
        from vigil.logs import LogStore

        self.testmod = testmod
        self.store: LogStore = LogStore(lines=lines, bytes=size)
        self.seq = [1]
        self.writers: dict[str, Writer] = {}

    def make(self, *names: str) -> None:
        """New logs, and logger has them."""
        for name in names:
            self.writers[name] = Writer(self.testmod, self.store.make(name), self.seq)

    def write(self, name: str, *lines: str | bytes, stderr: bool = False, real_ns: int = NOON) -> None:
        """An intake."""
        text = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        self.writers[name].write(text, flags=FORWARD | (STDERR if stderr else 0), real_ns=real_ns)

    def messages(self, *names: str, n: int = 1000, since: int | float | None = None) -> list[str]:
        """Messages of the tail."""
        return [entry.message for entry in self.tail(*names, n=n, since=since)]

    def tail(self, *names: str, n: int, since: int | float | None = None) -> list[api.LogEntry]:
        """The tail, decoded."""
        lines = b"".join(self.store.tail(names, n, since)).splitlines()
        return [msgspec.json.decode(line, type=api.LogEntry) for line in lines]


@pytest.fixture
def world(testmod: ModuleType, native: Any) -> Iterator[Any]:
    """``world(lines=..., size=...)``"""
    worlds: list[World] = []

    def start(lines: int = 1000, size: int = 1 << 20) -> World:
        worlds.append(World(testmod, lines, size))
        return worlds[-1]

    yield start
    for made in worlds:
        made.store.close()
        for writer in made.writers.values():
            writer.close()


async def take(follower: Follower) -> str:
    """The next chunk as text."""
    return (await asyncio.wait_for(anext(follower), 10)).decode()


async def take_lines(follower: Follower, count: int) -> list[Any]:
    """So many ndjson objects."""
    found: list[Any] = []
    while len(found) < count:
        found += [json.loads(line) for line in (await take(follower)).splitlines()]
    return found


def test_entries_look_as_the_api_promises(world: Any) -> None:
    w = world()
    w.make("web")
    w.write("web", "out", real_ns=NOON + 123_456_789)
    w.write("web", "err", stderr=True)
    out, err = w.tail("web", n=10)
    assert (out.seq, out.timestamp, out.service, out.stream, out.message, out.partial) == (
        1,
        "2026-03-21T12:00:00.123456Z",
        "web",
        "stdout",
        "out",
        False,
    )
    assert (err.seq, err.stream) == (2, "stderr")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00"),
        (951_782_400, "2000-02-29T00:00:00"),
        (1_709_251_199, "2024-02-29T23:59:59"),
        (1_735_689_599, "2024-12-31T23:59:59"),
        (4_107_542_400, "2100-03-01T00:00:00"),
    ],
)
def test_dates_are_right_on_odd_days(world: Any, seconds: int, text: str) -> None:
    w = world()
    w.make("web")
    w.write("web", "x", real_ns=seconds * SECOND)
    assert w.tail("web", n=1)[0].timestamp == text + ".000000Z"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b'nul \0 tab \t quote " back \\ bell \x07 del \x7f cr \r.',
            'nul \0 tab \t quote " back \\ bell \x07 del \x7f cr \r.',
        ),
        ("häßlich €uro 𝄞 \U0010ffff".encode(), "häßlich €uro 𝄞 \U0010ffff"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"cut \xe2\x82", "cut \ufffd\ufffd"),
        (b"overlong \xc0\x80 \xe0\x80\x80", "overlong \ufffd\ufffd \ufffd\ufffd\ufffd"),
        (b"surrogate \xed\xa0\x80", "surrogate \ufffd\ufffd\ufffd"),
        (b"too high \xf4\x90\x80\x80", "too high \ufffd\ufffd\ufffd\ufffd"),
        (b"", ""),
    ],
)
def test_any_bytes_become_json_that_parses(world: Any, raw: bytes, message: str) -> None:
    w = world()
    w.make("web")
    w.write("web", raw)
    assert w.messages("web") == [message]


def test_every_byte_pair_becomes_what_python_calls_valid_utf8(world: Any) -> None:
    w = world(lines=100_000, size=16 << 20)
    w.make("web")
    pairs = [bytes([a, b]) + b"\x80" for a in range(0x78, 256) for b in range(0x78, 256)]
    w.write("web", *pairs)
    for pair, message in zip(pairs, w.messages("web", n=100_000), strict=True):
        expected, at = "", 0
        while at < len(pair):
            for size in (1, 2, 3):
                try:
                    expected += pair[at : at + size].decode()
                except UnicodeDecodeError:
                    continue
                at += size
                break
            else:
                expected += "\ufffd"
                at += 1
        assert message == expected, pair


def test_logs_are_merged_in_the_order_of_capture(world: Any) -> None:
    w = world()
    w.make("a", "b", "c")
    for number in range(300):
        w.write("abc"[number * 7 % 3], f"{number}")
    assert w.messages("a", "b", "c") == [f"{n}" for n in range(300)]
    assert w.messages("c", "a") == [f"{n}" for n in range(300) if "abc"[n * 7 % 3] != "b"]
    assert w.messages("a", "b", "c", n=4) == ["296", "297", "298", "299"]
    assert w.messages("a", "nobody", "a", n=2) == [f"{n}" for n in range(300) if "abc"[n * 7 % 3] == "a"][-2:]
    assert w.messages("a", "b", n=0) == []


def test_since_is_exclusive_for_a_seq_and_inclusive_for_a_time(world: Any) -> None:
    w = world()
    w.make("a", "b")
    for number in range(20):
        w.write("ab"[number % 2], f"{number}", real_ns=NOON + number * SECOND)
    assert w.messages("a", "b", since=17) == ["17", "18", "19"], "seq 18 is the line 17"
    assert w.messages("a", "b", since=1_774_094_417.0) == ["17", "18", "19"]
    assert w.messages("a", "b", since=1_774_094_417.000001) == ["18", "19"]
    assert w.messages("a", "b", n=1, since=17) == ["19"]
    assert w.messages("a", "b", since=1000) == []
    assert w.messages("a", "b", since=0) == [f"{n}" for n in range(20)]


def test_last_lines_are_those_of_the_run(world: Any) -> None:
    w = world()
    w.make("web")
    w.write("web", "old", real_ns=NOON)
    w.write("web", *[f"{n}" for n in range(8)], real_ns=NOON + 5)
    assert w.store.last_lines("web", 5, NOON + 1) == ["3", "4", "5", "6", "7"]
    assert w.store.last_lines("web", 50, NOON + 1) == [f"{n}" for n in range(8)]
    assert w.store.last_lines("web", 5, NOON + 6) == []
    assert w.store.last_lines("nobody", 5, 0) == []


def test_only_the_last_lines_are_shown_even_where_more_wait_to_be_forwarded(world: Any) -> None:
    w = world(lines=10)
    w.make("web")
    writer = w.writers["web"]
    out = writer.split(b"".join(b"%d\n" % n for n in range(50)))
    header = writer.ring.header
    header.head, header.lines, header.last_seq = out.head, out.line, out.seq - 1
    assert w.messages("web") == [f"{n}" for n in range(40, 50)]


def test_a_log_is_adopted_with_what_it_holds(world: Any) -> None:
    w = world()
    w.make("web")
    w.write("web", "before")
    from vigil.logs import LogStore

    successor = LogStore(lines=1, bytes=1)
    fd = os.dup(w.store.make("other"))
    successor.adopt("other", fd)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    path = os.memfd_create("no log")
    with pytest.raises(OSError, match="cannot open the log of web"):
        successor.adopt("web", path)
    assert successor.names() == ["other"]
    successor.close()


def test_descriptors_and_maps_are_given_back(world: Any) -> None:
    w = world()

    def count() -> tuple[int, int]:
        with open("/proc/self/maps", encoding="ascii") as maps:
            return len(os.listdir("/proc/self/fd")), sum("vigil-log" in line for line in maps)

    before = count()
    for _ in range(20):
        w.store.make("web")
        list(w.store.tail(["web"], 10))
    assert count()[0] == before[0] + 1
    w.store.drop("web")
    w.store.drop("web")
    assert count() == before


def test_a_follower_gets_every_line_once_after_its_replay(world: Any) -> None:
    async def main() -> None:
        w = world()
        w.make("a", "b")
        w.write("a", *[f"{n}" for n in range(10)])
        follower = w.store.follow(["a", "b"], "ndjson", 3)
        w.write("b", "10")
        w.write("a", "11", "12")
        found = await take_lines(follower, 6)
        assert [entry["message"] for entry in found] == ["7", "8", "9", "10", "11", "12"]
        w.write("b", "13")
        assert [entry["message"] for entry in await take_lines(follower, 1)] == ["13"]
        follower.close()
        follower.close()
        with pytest.raises(StopAsyncIteration):
            await anext(follower)

    asyncio.run(main())


def test_a_follower_that_asks_for_no_replay_gets_only_what_is_new(world: Any) -> None:
    async def main() -> None:
        w = world()
        w.make("a")
        w.write("a", "old")
        follower = w.store.follow(["a"], "ndjson")
        w.write("a", "new")
        assert [entry["message"] for entry in await take_lines(follower, 1)] == ["new"]
        follower.close()

    asyncio.run(main())


def test_event_streams_have_ids_to_resume_from(world: Any) -> None:
    async def main() -> None:
        w = world()
        w.store.boot_id = "b00t"
        w.make("web")
        w.write("web", 'say "hi"', "two\rparts \xff".encode("latin-1"))
        events = w.store.follow(["web"], "json", 10)
        text = w.store.follow(["web"], "text", 10)
        first, second, rest = (await take(events)).split("\n\n")
        assert first.startswith('id: b00t-1\ndata: {"seq":1,"timestamp":"2026-03-21T12:00:00.000000Z","service":"web",')
        assert json.loads(first.partition("data: ")[2])["message"] == 'say "hi"'
        assert second.startswith("id: b00t-2\ndata: {")
        assert rest == ""
        assert await take(text) == (
            'id: b00t-1\ndata: [web] say "hi"\n\nid: b00t-2\ndata: [web] two\ndata: parts \ufffd\n\n'
        )
        resumed = w.store.follow(["web"], "text", 10_000_000, 1)
        w.write("web", "three")
        assert [part.partition("\n")[0] for part in (await take(resumed) + await take(resumed)).split("\n\n")] == [
            "id: b00t-2",
            "id: b00t-3",
            "",
        ]
        for follower in (events, text, resumed):
            follower.close()

    asyncio.run(main())


def test_logs_made_later_are_followed_from_their_first_line(world: Any) -> None:
    async def main() -> None:
        w = world()
        w.make("vigild", "a")
        everything = w.store.follow([], "ndjson")
        named = w.store.follow(["later", "vigild"], "ndjson")
        w.make("later")
        w.write("later", "hello")
        w.write("vigild", "diagnostics")
        w.write("a", "line")
        assert [e["message"] for e in await take_lines(everything, 2)] == ["hello", "line"]
        assert [e["message"] for e in await take_lines(named, 2)] == ["hello", "diagnostics"]
        w.write("a", "last words")
        w.store.drop("a")
        w.make("a")
        w.write("a", "again")
        assert [e["message"] for e in await take_lines(everything, 2)] == ["last words", "again"]
        everything.close()
        named.close()

    asyncio.run(main())


@pytest.mark.parametrize("format_", ["ndjson", "json", "text"])
def test_a_follower_that_was_lapped_is_told_how_many_lines_it_missed(world: Any, format_: str) -> None:
    async def main() -> None:
        w = world(lines=10)
        w.make("a", "b")
        follower = w.store.follow(["a", "b"], format_)
        w.write("a", *[f"{n}" for n in range(100)])
        w.write("b", *[f"{n}" for n in range(25)])
        got = await take(follower)
        if format_ == "ndjson":
            lines = [json.loads(line) for line in got.splitlines()]
            assert sum(line.get("lagged", 0) for line in lines) == 105
            assert sum("message" in line for line in lines) == 20
        else:
            assert got.count("data: ") == 20
            marks = [int(part[9:]) for part in got.split("\n\n") if part.startswith(": lagged ")]
            assert sum(marks) == 105
        follower.close()

    asyncio.run(main())


def test_followers_of_the_same_share_the_work(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        from vigil.logs import reader

        w = world()
        w.make("web")
        followers = [w.store.follow(["web"], "ndjson") for _ in range(200)]
        rendered = 0
        read = reader.Reader.read

        def counted(self: Any) -> bytes:
            nonlocal rendered
            data = read(self)
            rendered += len(data)
            return data

        monkeypatch.setattr(reader.Reader, "read", counted)
        w.write("web", *["x" * 100] * 500)
        chunks = await asyncio.gather(*(take_lines(follower, 500) for follower in followers))
        assert all(len(chunk) == 500 for chunk in chunks)
        assert rendered < 200_000, "500 lines were rendered once, not 200 times"
        for follower in followers:
            follower.close()

    asyncio.run(main())


def test_a_slow_follower_loses_only_what_the_log_has_lost(world: Any) -> None:
    async def main() -> None:
        w = world(lines=20_000, size=8 << 20)
        w.make("web")
        slow = w.store.follow(["web"], "ndjson")
        quick = w.store.follow(["web"], "ndjson")
        total = 0
        seen: list[int] = []
        for _ in range(20):
            w.write("web", *[f"{total + n} " + "x" * 100 for n in range(500)])
            total += 500
            seen += [int(e["message"].split()[0]) for e in await take_lines(quick, 500)]
        assert seen == list(range(total))
        assert len(slow._feed.chunks) < 15, "the shared chunks of the first lines are gone"
        assert [int(e["message"].split()[0]) for e in await take_lines(slow, total)] == list(range(total))
        for _ in range(60):  # now the log itself is lapped
            w.write("web", *[f"{total + n} " + "x" * 100 for n in range(500)])
            total += 500
            await take_lines(quick, 500)
        missed = 0
        got: list[int] = []
        while not got or got[-1] != total - 1:
            for line in (await take(slow)).splitlines():
                entry = json.loads(line)
                if "lagged" in entry:
                    missed += entry["lagged"]
                else:
                    got.append(int(entry["message"].split()[0]))
        assert got == list(range(total - len(got), total))
        assert missed == total - 10_000 - len(got)
        assert len(got) >= 19_000
        slow.close()
        quick.close()

    asyncio.run(main())


def test_a_follower_that_is_behind_gets_all_of_a_log_that_is_dropped(world: Any) -> None:
    async def main() -> None:
        w = world(lines=20_000, size=8 << 20)
        w.make("web", "other")
        w.write("web", *[f"old {n}" for n in range(500)])
        slow, replaying = w.store.follow([], "ndjson"), w.store.follow([], "ndjson", 500)
        quick = w.store.follow([], "ndjson")
        total = 0

        def write(count: int, name: str) -> list[str]:
            nonlocal total
            lines = [f"{total + n} " + "x" * 100 for n in range(count)]
            total += count
            for at in range(0, count, 500):
                w.write(name, *lines[at : at + 500])
            return lines

        live = write(2000, "web")
        await take_lines(quick, 2000)
        w.store.drop("web")
        del w.writers["web"]
        for _ in range(8):  # over and over what a feed keeps
            live += write(2000, "other")
            await take_lines(quick, 2000)
        assert slow._feed.first > 3, "the chunks with the lines of the dropped one are gone"
        assert [e["message"] for e in await take_lines(slow, total)] == live
        replayed = [e["message"] for e in await take_lines(replaying, 500 + total)]
        assert replayed == [f"old {n}" for n in range(500)] + live
        for follower in (slow, replaying, quick):
            follower.close()

    asyncio.run(main())


def test_a_replay_holds_up_nobody(world: Any) -> None:
    async def main() -> None:
        w = world(lines=100_000, size=32 << 20)
        w.make("web")
        for _ in range(200):
            w.write("web", *["x" * 100] * 500)
        follower = w.store.follow(["web"], "ndjson", 100_000)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.ensure_future(others())
        chunks, lines = 0, 0
        while lines < 100_000:
            lines += (await anext(follower)).count(b"\n")
            chunks += 1
        assert chunks > 100
        assert turns >= chunks, "between two pieces others had their turn"
        beside.cancel()
        follower.close()

    asyncio.run(main())


def test_who_comes_back_too_late_is_told_how_many_lines_are_gone(world: Any) -> None:
    async def main() -> None:
        w = world(lines=10)
        w.make("a", "b", "quiet")

        async def lagged(since: int, *names: str, n: int = 10_000_000) -> int:
            follower = w.store.follow(names, "ndjson", n, since)
            w.write("quiet", "end")
            got = [json.loads(line) for line in (await take(follower)).splitlines()]
            follower.close()
            assert [entry.get("lagged", 0) for entry in got[1:]] == [0] * (len(got) - 1), "told before all else"
            return int(got[0].get("lagged", 0))

        w.write("quiet", "1")
        w.write("a", *[f"{n}" for n in range(2, 102)])
        assert await lagged(0, "a", "quiet") == 90
        assert await lagged(1, "a", "quiet") == 90
        assert await lagged(50, "a", "quiet") == 41, "51 to 91"
        assert await lagged(90, "a", "quiet") == 1
        assert await lagged(91, "a", "quiet") == 0
        assert await lagged(95, "a", "quiet") == 0
        assert await lagged(0, "quiet") == 0, "what others have lost is not its loss"
        assert await lagged(50, "a", "quiet", n=5) == 0, "the last 5 are all there"
        assert await lagged(10_000, "a", "quiet") == 0
        last = w.seq[0] - 1
        w.write("b", *["x"] * 25)
        assert await lagged(last, "a", "b", "quiet") == 15
        assert await lagged(last, "a", "quiet") == 0
        assert await lagged(0, "a", "b") in (105, 106), "of quiet too a line is gone by now"
        last = w.seq[0] - 1
        w.write("quiet", "x", "x", "x")
        w.write("a", *["x"] * 11)
        assert await lagged(last, "a") == 1, "the seqs in between are those of others, which are there"

    asyncio.run(main())


def test_nothing_ticks_while_nobody_follows(world: Any) -> None:
    async def main() -> None:
        w = world()
        w.make("web")
        before = len(asyncio.all_tasks())
        follower = w.store.follow(["web"], "json")
        other = w.store.follow(["web"], "text")
        assert len(asyncio.all_tasks()) == before + 1
        follower.close()
        other.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before

    asyncio.run(main())


def test_a_waiting_follower_ends_when_it_is_closed_or_the_store_is(world: Any) -> None:
    async def main() -> None:
        w = world()
        w.make("web")
        one, two = w.store.follow(["web"], "json"), w.store.follow(["web"], "json")
        waiting = [asyncio.ensure_future(anext(follower, b"")) for follower in (one, two)]
        await asyncio.sleep(0.05)
        one.close()
        assert await asyncio.wait_for(waiting[0], 5) == b""
        assert not waiting[1].done()
        w.store.close()
        assert await asyncio.wait_for(waiting[1], 5) == b""

    asyncio.run(main())


def test_readers_race_with_a_writer_and_never_see_a_torn_or_doubled_line(world: Any) -> None:
    """The writer is a thread; cffi gives up the interpreter's lock in every call, so both run at once."""
    import threading

    w = world(lines=300, size=131072)
    w.make("web")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            w.write("web", *[f"{n} " + chr(97 + n % 26) * (n % 700) for n in range(number, number + 20)])
            number += 20

    async def main() -> None:
        follower = w.store.follow(["web"], "ndjson")
        thread.start()
        expected, seen = 0, 0
        for _ in range(60):
            for line in (await take(follower)).splitlines():
                entry = json.loads(line)
                if "lagged" in entry:
                    expected += entry["lagged"]
                    continue
                number, _, rest = entry["message"].partition(" ")
                assert int(number) == expected
                assert rest == chr(97 + expected % 26) * (expected % 700)
                expected += 1
                seen += 1
        follower.close()
        assert seen > 1000

    thread = threading.Thread(target=write)
    try:
        asyncio.run(main())
    finally:
        stop.set()
        thread.join()
