"""What the overlord does with services, over a PID 1 without processes."""

from __future__ import annotations

from tests.unit.overlord_world import World, service


def test_enabled_services_start_once_in_a_boot_and_the_change_is_done_after_a_second() -> None:
    world = World([service("web"), service("idle", startup="disabled")])
    world.settle()
    assert world.states() == {"web": "active", "idle": "inactive"}
    (change,) = world.overlord.changes()
    assert (change.kind, change.cause, change.status.value) == ("autostart", "vigild: autostart", "doing")
    world.advance(0.999)
    assert world.status(change) == "doing"
    world.advance(0.002)
    assert world.status(change) == "done"
    world.do("stop", "web")
    world.kill()
    world.settle()
    assert world.states() == {"web": "inactive", "idle": "inactive"}
    assert world.starts("web") == 1
    world.check()
