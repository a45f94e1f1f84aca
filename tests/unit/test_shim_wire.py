"""The messages' bytes, and what is not taken for one."""

from __future__ import annotations

import pytest

from tests.channel import fake
from vigil._native import ffi, lib
from vigil.shim import wire
from vigil.shim.messages import LogMode, Run, RunKind, SpawnSpec, Target, Welcome


def spec(**more):
    return SpawnSpec(**{"token": 1, "name": "web", "argv": ["/bin/true"], "env": {}, **more})


def test_delays_are_rounded_up_and_long_ones_are_for_ever():
    def delay(seconds):
        m = ffi.from_buffer("struct vg_spawn *", wire.spawn(spec(kill_delay=seconds))[0])
        return m.kill_delay_ms

    assert [delay(0), delay(0.0001), delay(1.5)] == [0, 1, 1500]
    assert [delay(None), delay(float("inf")), delay(1e12)] == [lib.VG_FOREVER] * 3


def test_signals_become_bits_up_to_64():
    m = ffi.from_buffer("struct vg_spawn *", wire.spawn(spec(forward=frozenset({1, 64})))[0])
    assert m.forward_mask == 1 | 1 << 63


@pytest.mark.parametrize(
    "bad",
    [
        {"argv": ["a\0b"]},
        {"env": {"A": "\0"}},
        {"name": "x" * 129},
        {"log": "x" * 129},
        {"prefix": "x" * 192},
        {"note": b"x" * 257},
    ],
)
def test_what_cannot_be_packed_is_refused(bad):
    with pytest.raises(ValueError, match=r"longer than|NUL"):
        wire.spawn(spec(**bad))


def test_bytes_that_are_no_text_survive():
    _, blob = wire.spawn(spec(argv=["\udcff", "ä"], env=[b"A=\xfe"]))
    assert blob.endswith(b"\0\xff\0\xc3\xa4\0A=\xfe\0")


def test_the_blob_holds_groups_padded_then_limits():
    _, blob = wire.spawn(spec(groups=[5], limits=[(7, 1024, 2**64 - 1)]))
    assert blob[:8] == b"\x05\0\0\0\0\0\0\0"
    assert blob[8:32] == b"\x07\0\0\0\0\0\0\0" + (1024).to_bytes(8, "little") + b"\xff" * 8


def test_an_update_says_only_what_changes():
    m = ffi.from_buffer("struct vg_update_run *", wire.update(Run(1, 2), None, (3, 4), None, LogMode.DISABLED))
    assert m.set == lib.VG_UPDATE_ORDER | lib.VG_UPDATE_LOG
    assert (m.component, m.rank, m.log_mode) == (3, 4, lib.VG_LOG_DISABLED)
    m = ffi.from_buffer("struct vg_update_run *", wire.update(Run(1, 2), (15, None), None, frozenset({1}), None))
    assert m.set == lib.VG_UPDATE_STOP | lib.VG_UPDATE_FORWARD
    assert (m.stop_signal, m.kill_delay_ms, m.forward_mask) == (15, lib.VG_FOREVER, 1)


def test_every_message_has_the_size_its_head_says():
    run = Run(1, 2)
    packed = [wire.signal(run, 9, Target.TREE), wire.stop(run), wire.release(run), wire.park("a"), wire.unpark("a")]
    packed += [wire.ready(), wire.pong(7), wire.shutdown(3, True), wire.spawn(spec(kind=RunKind.PROBE))[0]]
    for message in packed:
        assert ffi.from_buffer("struct vg_head *", message).size == len(message) <= lib.VG_MESSAGE_MAX


def test_a_name_to_park_fits_or_is_refused():
    assert len(wire.park("x" * lib.VG_PARK_MAX)) == ffi.sizeof("struct vg_park")
    for bad in ("", "x" * (lib.VG_PARK_MAX + 1)):
        with pytest.raises(ValueError, match="cannot be parked"):
            wire.park(bad)


def test_bytes_that_are_no_message_are_refused():
    good = fake._welcome(Welcome())
    assert isinstance(wire.unpack(good), Welcome)
    for bad in (b"", b"1234567", good[:-1], good + b"\0", b"\0" * len(good), wire.ready()):
        with pytest.raises(wire.WireError, match="cannot understand"):
            wire.unpack(bad)


def test_a_number_of_no_enum_is_refused():
    m = fake._new("struct vg_stopping", lib.VG_STOPPING)
    m.cause = 99
    with pytest.raises(wire.WireError, match="99"):
        wire.unpack(bytes(ffi.buffer(m)))


def test_another_version_is_named():
    m = fake._new("struct vg_welcome", lib.VG_WELCOME)
    m.version = lib.VG_PROTOCOL + 1
    with pytest.raises(wire.WireError, match=f"version {lib.VG_PROTOCOL + 1}"):
        wire.unpack(bytes(ffi.buffer(m)))
