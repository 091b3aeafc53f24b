from __future__ import annotations

import pytest

from minikube_raw.runtime.users import UnknownUser, resolve

PASSWD = (
    """# a comment
root:x:0:0:root:/root:/bin/sh
broken line
web:x:33:34:Web:/var/www:/bin/false
12:x:0:0::/named-like-a-number:
4294967296:x:0:0::/named-like-a-number-out-of-range:
huge:x:99999999999999999999:0::/:
nohome:x:50:50::
minus:x:-1:0::/:
arabic:x:٣٣:0::/:
"""
    f"endless:x:{'9' * 5000}:0::/:\nlong:x:60:60:{'x' * 1_000_000}:/long:\n"
)
GROUP = "root:x:0:\nwww:x:34:\nlogs:x:40:web,root\nadm:x:41:other,web\nbad:x:y:web\n43:x:0:\n2147483648:x:0:\n"


@pytest.mark.parametrize(
    ("wanted", "options", "expected"),
    [
        pytest.param("", {}, (0, 0, [0, 40], "/root"), id="nobody said anything"),
        pytest.param("web", {}, (33, 34, [34, 40, 41], "/var/www"), id="name"),
        pytest.param("33", {}, (33, 34, [34, 40, 41], "/var/www"), id="number that has an entry"),
        pytest.param("web:logs", {}, (33, 40, [40], "/var/www"), id="group by name: no memberships"),
        pytest.param("web:0", {}, (33, 0, [0], "/var/www"), id="group by number"),
        pytest.param("1234", {}, (1234, 0, [0], "/"), id="unknown number"),
        pytest.param("1234:5678", {}, (1234, 5678, [5678], "/"), id="unknown numbers"),
        pytest.param("12", {}, (12, 0, [0], "/"), id="a number that is also a name: root's, if the image could say so"),
        pytest.param("0012", {}, (12, 0, [0], "/"), id="a number with noughts before it"),
        pytest.param("web:43", {}, (33, 43, [43], "/var/www"), id="a group's number that is also a name"),
        pytest.param("long", {}, (60, 60, [60], "/long"), id="a line of a million letters"),
        pytest.param("2147483647", {}, (2147483647, 0, [0], "/"), id="the highest number"),
        pytest.param("nohome", {}, (50, 50, [50], "/"), id="no home"),
        pytest.param(
            "web", {"gid": 7, "supplemental": (8, 34)}, (33, 7, [7, 40, 41, 8, 34], "/var/www"), id="runAsGroup"
        ),
    ],
)
def test_users_are_resolved_as_containerd_does(
    wanted: str, options: dict[str, object], expected: tuple[int, int, list[int], str]
) -> None:
    user = resolve(wanted, PASSWD, GROUP, **options)  # type: ignore[arg-type]
    assert (user.uid, user.gid, user.groups, user.home) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param("ghost", "unable to find user ghost: no matching entries in passwd file", id="user"),
        pytest.param("huge", "unable to find user huge: no matching entries in passwd file", id="an id out of range"),
        pytest.param(
            "2147483648",
            "unable to find user 2147483648: no matching entries in passwd file",
            id="a number out of range",
        ),
        pytest.param(
            "4294967295", "unable to find user 4294967295: no matching entries in passwd file", id="no change (-1)"
        ),
        pytest.param(
            "4294967296",
            "unable to find user 4294967296: no matching entries in passwd file",
            id="out of range, and a name",
        ),
        pytest.param("-1", "unable to find user -1: no matching entries in passwd file", id="a negative number"),
        pytest.param(
            "web:2147483648",
            "unable to find group 2147483648: no matching entries in group file",
            id="a group out of range",
        ),
        pytest.param(
            "endless", "unable to find user endless: no matching entries in passwd file", id="an id of 5000 digits"
        ),
        pytest.param(
            "9" * 5000, f"unable to find user {'9' * 5000}: no matching entries in passwd file", id="5000 digits"
        ),
        pytest.param("minus", "unable to find user minus: no matching entries in passwd file", id="a negative id"),
        pytest.param(
            "arabic", "unable to find user arabic: no matching entries in passwd file", id="digits of another script"
        ),
        pytest.param("web:ghosts", "unable to find group ghosts: no matching entries in group file", id="group"),
    ],
)
def test_an_unknown_name_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(UnknownUser, match=message):
        resolve(wanted, PASSWD, GROUP)
