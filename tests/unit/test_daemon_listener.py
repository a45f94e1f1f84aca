"""The API's socket: where it is, who may use it, and whom it replaces."""

from __future__ import annotations

import os
import socket
import stat
import threading

import pytest

from tests.channel.fake import FakePid1
from vigil.client import places
from vigil.daemon import listener as listeners
from vigil.model.errors import StartError


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def bind(folder):
    made = []

    def run(path=None, mode=0o660, group=None):
        bound = listeners.bind(None if path is None else str(path), mode, group)
        if bound is not None:
            made.append(bound.fd)
        return bound

    yield run
    for fd in made:
        os.close(fd)


def connects(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
    return True


def test_it_is_made_with_its_parents_mode_and_group(folder, bind):
    path = folder / "a" / "b" / "vigild.sock"
    for mode in (0o660, 0o600, 0o666):
        bound = bind(path, mode, str(os.getegid()))
        found = os.lstat(path)
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_gid == os.getegid()
        assert connects(path)  # it waits in the backlog: nobody has accepted
        bound.remove()
    assert os.listdir(path.parent) == []


def test_the_umask_is_as_it_was(folder, bind):
    before = os.umask(0o027)
    try:
        bind(folder / "x.sock")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_live_daemon_is_not_replaced(folder, bind):
    path = folder / "x.sock"
    bind(path)
    before = os.lstat(path)
    with pytest.raises(StartError, match=r"cannot listen on .*x\.sock: another daemon answers there"):
        bind(path)
    assert os.lstat(path).st_ino == before.st_ino
    assert os.listdir(folder) == ["x.sock"]


def test_a_full_backlog_is_a_live_daemon_too(folder, bind):
    path = folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(StartError, match="another daemon answers"):
            bind(path)
        for client in clients:
            client.close()


def test_a_stale_socket_is_replaced_without_a_moment_of_none(folder, bind):
    path = folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    missing = []
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            if not path.exists():
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(50):
        bound = bind(path)
        os.close(os.dup(bound.fd))
        listeners.os.close(bound.fd)  # its owner dies: stale again
        bound.fd = os.open("/dev/null", os.O_RDONLY)
    stop.set()
    watcher.join()
    assert not missing


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_something_else_is_not_replaced(folder, bind, kind):
    path = folder / "x.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(folder / "elsewhere")
    with pytest.raises(StartError, match="it is there and no socket"):
        bind(path)
    assert os.listdir(folder) == ["x.sock"]


def test_a_socket_of_another_type_is_not_replaced(folder, bind):
    path = folder / "x.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(StartError, match="a socket is there"):
            bind(path)


def test_a_path_that_is_too_long_is_refused_with_the_limit(folder, bind):
    with pytest.raises(StartError, match="at most 107 bytes"):
        bind(folder / ("x" * 120))
    room = 107 - len(os.fsencode(folder)) - 1
    for length in (1, 6, room):
        assert connects(bind(folder / ("y" * length)).place.path)


def test_an_unknown_group_and_a_missing_right_are_sentences(folder, bind, monkeypatch):
    with pytest.raises(StartError, match='no group "nobody-has-this"'):
        bind(folder / "x.sock", 0o660, "nobody-has-this")
    monkeypatch.setattr(listeners.os, "access", lambda *_: False)
    with pytest.raises(StartError, match=r"cannot listen on .*: Permission denied"):
        bind(folder / "x.sock")
    monkeypatch.undo()
    (folder / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot listen on .*: Not a directory"):
        bind(folder / "file" / "x.sock")


def test_the_first_usual_place_that_can_be_made_is_taken(folder, bind, monkeypatch):
    (folder / "file").write_text("")
    good = f"{folder}/good/vigil/vigild.sock"
    monkeypatch.setattr(places, "usual", lambda: [f"{folder}/file/vigild.sock", good, f"{folder}/no/vigild.sock"])
    assert bind().place.path == good
    with pytest.raises(StartError, match="another daemon answers"):  # two daemons would hide each other's socket
        bind()


def test_a_usual_place_that_is_not_ours_to_write_is_passed_over(folder, bind, monkeypatch):
    theirs, ours = f"{folder}/theirs/vigild.sock", f"{folder}/ours/vigild.sock"
    monkeypatch.setattr(places, "usual", lambda: [theirs, ours])
    bind(theirs)
    real = os.access
    monkeypatch.setattr(listeners.os, "access", lambda path, mode: "theirs" not in path and real(path, mode))
    assert bind().place.path == ours


def test_no_place_at_all_is_a_warning(folder, bind, monkeypatch, capfd):
    (folder / "file").write_text("")
    monkeypatch.setattr(places, "usual", lambda: [f"{folder}/file/a.sock", f"{folder}/file/b.sock"])
    assert bind() is None
    assert "there is no API" in capfd.readouterr().err


def test_a_directory_in_tmp_is_our_own_or_not_used(bind, monkeypatch, capfd):
    private = f"/tmp/vigil-test-{os.getpid()}"
    monkeypatch.setattr(places, "usual", lambda: [f"{private}/vigild.sock"])
    try:
        bound = bind()
        assert stat.S_IMODE(os.lstat(private).st_mode) == 0o700
        bound.remove()
        os.chmod(private, 0o755)
        assert bind() is None
        assert "open to others" in capfd.readouterr().err
        os.chmod(private, 0o700)
        if os.geteuid() == 0:
            os.chown(private, 65534, -1)
            assert bind() is None
    finally:
        os.rmdir(private)


def test_only_our_own_socket_is_removed(folder, bind):
    path = folder / "x.sock"
    first = bind(path)
    os.unlink(path)
    first.remove()  # gone already: no matter
    second = bind(path)
    first.remove()
    assert connects(path)
    second.remove()
    assert not path.exists()


def test_the_next_control_takes_it_over(folder, bind):
    pid1 = FakePid1()
    bound = bind(folder / "x.sock")
    bound.park(pid1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "x.sock"))
        os.close(bound.fd)  # control dies
        bound.fd = os.open("/dev/null", os.O_RDONLY)
        _, snapshot = pid1.attach()
        again = listeners.adopt(snapshot.parked[listeners.PARKED_AS], bound.record())
        server = socket.socket(fileno=again.fd)
        server.settimeout(5)
        server.accept()[0].close()
    assert again.place == bound.place
    again.remove()
    assert not (folder / "x.sock").exists()
    server.close()
    pid1.close()
