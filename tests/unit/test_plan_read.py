"""What is read from outside: layers, env-files, users."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from tests.unit.plan_world import layer, plan, sources
from vigil.model.api import Problem
from vigil.model.errors import PlanError
from vigil.plan import Account, Credentials, Plan, Sources, accounts, load, read
from vigil.plan.accounts import Own, Request

ROOT = Own(0, 0, may_set_uid=True, may_set_gid=True)
POOR = Own(1000, 1000, may_set_uid=False, may_set_gid=False)


def _read_and_load(directory: Path) -> Plan:
    return load(read(str(directory)))


def _problems(directory: Path) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        _read_and_load(directory)
    return _lines(caught.value.problems)


def _lines(found: tuple[Problem, ...]) -> tuple[str, ...]:
    return tuple(map(str, found))


def test_layers_are_merged_in_byte_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "B.yml", "10.yaml", "9.yaml", "ä.yaml", "a.yaml"):
        (tmp_path / name).write_text(f"summary: {name}")
    found = read(str(tmp_path))
    assert [os.path.basename(path) for path, _ in found.layers] == [
        *("10.yaml", "9.yaml", "B.yml", "a.yaml", "b.yaml", "ä.yaml")
    ]
    assert load(found).summary == "ä.yaml"


def test_files_that_are_replaced_while_they_are_read_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plan_ in ("old", "newer"):
        (tmp_path / plan_).mkdir()
        for name in ("a", "b"):
            (tmp_path / plan_ / f"{name}.yaml").write_text(f"services: {{{name}-{plan_}: {{command: x}}}}")
    layers = tmp_path / "layers"
    layers.symlink_to("old")  # as volumes are mounted
    opened: list[str] = []
    real = os.open

    def open_(path: str, flags: int) -> int:
        opened.append(path)
        if len(opened) == 2:
            layers.unlink()
            layers.symlink_to("newer")
        return real(path, flags)

    monkeypatch.setattr("vigil.plan.reader.os.open", open_)
    assert list(_read_and_load(layers).services) == ["a-newer", "b-newer"]
    assert len(opened) == 4


@pytest.mark.parametrize("change", ["content", "env-file", "another layer"])
def test_a_plan_that_does_not_stop_changing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    layers = tmp_path / "layers"
    layers.mkdir()
    (tmp_path / "env").write_text("A=1")
    (tmp_path / "empty").touch()
    (layers / "a.yaml").write_text(f"services: {{a: {{command: x, env-file: {tmp_path}/env}}}}")
    real, opened = os.close, [0]

    def close(descriptor: int) -> None:
        opened[0] += 1
        match change:
            case "content":
                with (layers / "a.yaml").open("a") as file:
                    file.write("#")
            case "env-file":
                (tmp_path / "new").write_text("A=" + "1" * opened[0])
                (tmp_path / "new").rename(tmp_path / "env")
            case _:
                (layers / f"{opened[0]}.yaml").symlink_to(tmp_path / "empty")
        real(descriptor)

    monkeypatch.setattr("vigil.plan.reader.os.close", close)
    assert _problems(layers) == (f"{layers}: cannot read: it changes while it is read",)


def test_only_yaml_and_yml_that_are_not_hidden_are_layers(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.yaml~", "d.YAML", "e.json", ".f.yaml", "README", "yaml"):
        (tmp_path / name).write_text("summary: x")
    (tmp_path / ".#lock.yaml").symlink_to("nobody@nowhere")
    assert [os.path.basename(path) for path, _ in read(str(tmp_path)).layers] == ["a.yaml", "b.yml"]


def test_a_missing_directory_is_an_empty_plan_with_a_warning(tmp_path: Path) -> None:
    made = _read_and_load(tmp_path / "none")
    assert _lines(made.warnings) == (f"{tmp_path}/none: there is no such directory, so the plan is empty",)
    assert made == Plan(warnings=made.warnings)


def test_a_directory_without_layers_is_an_empty_plan_with_a_warning(tmp_path: Path) -> None:
    found = _lines(_read_and_load(tmp_path).warnings)
    assert found == (f"{tmp_path}: holds no layers (*.yaml, *.yml), so the plan is empty",)


def test_a_file_instead_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "layers").write_text("")
    assert _problems(tmp_path / "layers") == (f"{tmp_path}/layers: cannot read: it is a file, not a directory",)


def test_what_cannot_be_read_is_reported_with_all_other_problems(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").mkdir()
    (tmp_path / "2.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "3.yaml")
    (tmp_path / "4.yaml").write_text(layer("kill-delay: soon", "after: [elsewhere]"))
    (tmp_path / "5.yaml").symlink_to("/dev/zero")
    (tmp_path / "6.yaml").symlink_to("6.yaml")
    with pytest.raises(PlanError) as caught:
        read(str(tmp_path))
    assert sorted(_lines(caught.value.problems)) == [
        f"{tmp_path}/1.yaml: cannot read: it is a directory, not a file",
        f"{tmp_path}/2.yaml: cannot read: No such file or directory",
        f"{tmp_path}/3.yaml: cannot read: it is not a regular file",
        f'{tmp_path}/4.yaml:3:17: services.web.kill-delay: "soon" is not a duration (write 500ms, 3s, 1m30s, 1h)',
        f"{tmp_path}/5.yaml: cannot read: it is not a regular file",
        f"{tmp_path}/6.yaml: cannot read: Too many levels of symbolic links",
    ]


def test_a_file_without_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.yaml").touch(mode=0)
    if os.geteuid() == 0:  # whom the kernel refuses nothing
        error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        monkeypatch.setattr(os, "open", Mock(side_effect=error))
    assert _problems(tmp_path) == (f"{tmp_path}/1.yaml: cannot read: Permission denied",)


def test_a_file_that_is_too_large_is_a_problem(tmp_path: Path) -> None:
    with (tmp_path / "1.yaml").open("wb") as file:
        file.truncate((16 << 20) + 1)
    assert _problems(tmp_path) == (f"{tmp_path}/1.yaml: cannot read: it is larger than 16 MiB",)


def test_a_name_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml")).touch()
    (found,) = _problems(tmp_path)
    assert found.endswith(".yaml: cannot read: its name is not UTF-8")
    assert found.isascii()


def test_reading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").mkdir()
    os.mkfifo(tmp_path / "2.yaml")
    (tmp_path / "3.yaml").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        _problems(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_sources_make_the_same_plan_again_after_a_trip_through_msgpack(tmp_path: Path) -> None:
    (tmp_path / "app.env").write_text("A=1\n")
    name = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "1.yaml").write_text(layer("command: run", f"env-file: {tmp_path}/app.env", f"user: {name}"))
    found = read(str(tmp_path))
    made = load(found)
    (tmp_path / "1.yaml").unlink()
    (tmp_path / "app.env").unlink()
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Sources)
    assert again == found
    assert load(again) == load(found) == made
    assert made.services["web"].environment == {"A": "1"}


def test_loading_does_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(layer("command: run"))
    found = read(str(tmp_path))
    assert list(plan(layer("command: x", name="other")).services) == ["other"]
    assert list(load(found).services) == ["web"]


# env-files


def test_variables_of_later_env_files_win_and_the_environment_wins_over_all() -> None:
    text = layer("env-file: [/e/1, /e/2]", "environment: {C: own}")
    files = (("/e/1", b"A=1\nB=1\nC=1\n"), ("/e/2", b"B=2\nC=2\n"))
    made = load(sources(text, env_files=files))
    assert made.services["web"].environment == {"A": "1", "B": "2", "C": "own"}


def test_an_env_file_is_read_as_docker_reads_it() -> None:
    content = b"\xef\xbb\xbf# comment\n\n  A=1\nB=two words # all value \nC=\nD=a=b\r\nE='q'\n\t#x\nF-1.x=\xc3\xa4"
    made = load(sources(layer("env-file: /e"), env_files=(("/e", content),)))
    assert made.services["web"].environment == {
        "A": "1",
        "B": "two words # all value ",
        "C": "",
        "D": "a=b",
        "E": "'q'",
        "F-1.x": "ä",
    }
    assert _lines(made.warnings) == (
        '/e:7:1: the quotes around the value of "E" are part of it (nothing is unquoted here)',
    )


def test_problems_of_an_env_file_name_its_path_and_line_once() -> None:
    text = layer("env-file: [/e]") + "  db: {env-file: [/e]}\n"
    with pytest.raises(PlanError) as caught:
        load(sources(text, env_files=(("/e", b"OK=1\nNOVALUE\n  =x\nexport A=1\nA B=1\nN=\0\nC =1\n"),)))
    assert _lines(caught.value.problems) == (
        '/e:2:1: the line has no "=" (write KEY=VALUE)',
        "/e:3:3: a line begins with = (write KEY=VALUE)",
        '/e:4:1: "export A" is not a variable\'s name (leave out export)',
        '/e:5:1: "A B" is not a variable\'s name (write KEY=VALUE)',
        "/e:6:1: holds a NUL character, which no variable can",
        '/e:7:1: "C " is not a variable\'s name (write C=VALUE, without blanks before the =)',
    )


def test_what_is_no_env_file_is_told_once_and_never_shown() -> None:
    with pytest.raises(PlanError) as caught:
        load(sources(layer("env-file: /e"), env_files=(("/e", b"--BEGIN KEY--\nMIIhunter2\nhunter3\n"),)))
    (found,) = caught.value.problems
    assert str(found) == '/e:1:1: the line has no "=" (write KEY=VALUE), and so have 2 more'
    assert found.excerpt == ""


def test_an_env_file_that_is_not_utf8_is_a_problem() -> None:
    with pytest.raises(PlanError) as caught:
        load(sources(layer("env-file: /e"), env_files=(("/e", b"A=1\nB=\xff\n"),)))
    assert _lines(caught.value.problems) == ("/e:2:3: byte 0xff is not valid UTF-8 (save the file as UTF-8)",)


def test_an_env_file_that_cannot_be_read_is_a_problem_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(layer("env-file: [/nowhere/a.env]", "after: [nobody]"))
    (tmp_path / "2.yaml").write_text(layer(f"env-file: {tmp_path}"))
    assert _problems(tmp_path) == (
        (
            f"{tmp_path}/1.yaml:3:16: services.web.env-file: cannot read /nowhere/a.env: No such file or directory"
            " (it is read with the plan)"
        ),
        f'{tmp_path}/1.yaml:4:13: services.web.after: there is no service "nobody" (there is web)',
        (
            f"{tmp_path}/2.yaml:3:15: services.web.env-file: cannot read {tmp_path}: it is a directory, not a file"
            " (it is read with the plan)"
        ),
    )


# users


def _resolve(me: Own, **request: str | int) -> Account:
    (account,) = accounts.resolve([Request(**request)], me)  # type: ignore[arg-type]
    return account


def test_a_user_brings_its_groups_and_home() -> None:
    entry = pwd.getpwnam("root")
    groups = tuple(dict.fromkeys((entry.pw_gid, *os.getgrouplist("root", entry.pw_gid))))
    expected = Credentials(0, entry.pw_gid, groups, entry.pw_dir, "root", switch=True)
    assert _resolve(ROOT, user="root").credentials == expected
    assert _resolve(ROOT, user_id=0).credentials == expected
    assert _resolve(ROOT, user="root", user_id=0).credentials == expected


def test_supplementary_groups_come_from_the_user_database_and_the_primary_group_is_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [7, gid, 8])
    root = _resolve(ROOT, user="root", group_id=55).credentials
    assert root is not None
    assert (root.gid, root.groups) == (55, (55, 7, 8))


def test_a_user_id_without_entry_needs_a_group_and_lives_in_the_root_directory() -> None:
    assert _resolve(ROOT, user_id=4_000_000, group_id=5).credentials == Credentials(4_000_000, 5, (5,), "/", None)
    account = _resolve(ROOT, user_id=4_000_000)
    assert account.credentials is None
    assert account.error == "user id 4000000 is not in the user database (give it a group-id)"
    assert account.error_key == "user-id"


def test_a_group_alone_changes_only_the_group() -> None:
    group = grp.getgrall()[-1]
    expected = Credentials(0, group.gr_gid, (group.gr_gid,), None, None)
    assert _resolve(ROOT, group=group.gr_name).credentials == expected
    assert _resolve(ROOT, group_id=group.gr_gid).credentials == expected


@pytest.mark.parametrize(
    ("request_", "key", "message"),
    [
        ({"user": "no-such-user"}, "user", 'there is no user "no-such-user"'),
        ({"user": "no\0user"}, "user", 'there is no user "no\\x00user"'),
        ({"user": "4000000"}, "user", "(write user-id: 4000000 if it is a number)"),
        ({"user": "root:5"}, "user", 'there is no user "root:5" (write user: root, and group-id: 5)'),
        ({"user": "root", "user_id": 5}, "user-id", 'user "root" has the id 0, not 5'),
        ({"user": "no-such-user", "user_id": 5, "group_id": 5}, "user", "there is no user"),
        ({"group": "no-such-group"}, "group", 'there is no group "no-such-group"'),
        ({"group": "root", "group_id": 5}, "group-id", 'group "root" has the id 0, not 5'),
        ({"user": "root", "group": "no-such-group"}, "group", "there is no group"),
    ],
)
def test_unknown_users_and_groups_are_errors(request_: dict[str, str | int], key: str, message: str) -> None:
    account = _resolve(ROOT, **request_)
    assert account.credentials is None
    assert account.error is not None
    assert message in account.error
    assert account.error_key == key


def test_another_user_or_group_is_an_error_where_vigild_may_not_change_to_it() -> None:
    user = _resolve(POOR, user="root")
    assert user.error is not None
    assert user.error.startswith("vigild runs as user id 1000 and may not start anything as user id 0")
    group = _resolve(POOR, group_id=5)
    assert (group.credentials, group.error_key) == (None, "group-id")
    half = Own(1000, 1000, may_set_uid=True, may_set_gid=False)
    assert _resolve(half, user="root").credentials is None


def test_vigilds_own_user_is_right_everywhere_and_then_nothing_is_switched() -> None:
    assert _resolve(POOR, user_id=1000, group_id=1000).credentials == Credentials(
        1000, 1000, _groups_of(1000), _home_of(1000), _name_of(1000), switch=False
    )
    assert _resolve(POOR, group_id=1000).credentials == Credentials(1000, 1000, (1000,), None, None, switch=False)


def _name_of(uid: int) -> str | None:
    return next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == uid), None)


def _home_of(uid: int) -> str:
    return next((entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid == uid), "/")


def _groups_of(gid: int) -> tuple[int, ...]:
    name = _name_of(gid)
    return (gid,) if name is None else tuple(dict.fromkeys((gid, *os.getgrouplist(name, gid))))


def test_rights_are_those_of_this_process() -> None:
    me = accounts.own()
    assert (me.uid, me.gid) == (os.geteuid(), os.getegid())
    if me.uid != 0:
        assert not me.may_set_uid


def test_a_user_that_is_wrong_is_a_problem_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(layer("user: no-such-user", "group-id: 5") + "  db: {group: no-such-group}\n")
    assert _problems(tmp_path) == (
        (
            f'{tmp_path}/1.yaml:3:11: services.web.user: there is no user "no-such-user"'
            " (make it in the image, or write user-id and group-id)"
        ),
        (
            f'{tmp_path}/1.yaml:5:15: services.db.group: there is no group "no-such-group"'
            " (make it in the image, or write group-id)"
        ),
    )


def test_users_are_looked_up_once_each(tmp_path: Path) -> None:
    who = f"user-id: {os.geteuid()}, group-id: {os.getegid()}"
    (tmp_path / "1.yaml").write_text(f"services: {{a: {{{who}}}, b: {{{who}}}, c: {{}}, d: {{{who}, umask: 077}}}}")
    found = read(str(tmp_path))
    assert len(found.accounts) == 1
    services = load(found).services
    assert services["a"].user == services["b"].user == found.accounts[0].credentials
    assert services["c"].user is None


def test_loading_asks_nobody_about_users() -> None:
    with pytest.raises(PlanError) as caught:
        load(sources(layer("user: root")))
    assert "was not looked up with the plan" in str(caught.value)
