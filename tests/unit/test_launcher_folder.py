"""Where launcher and run host meet: private, and right about which workers live."""

import fcntl
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from hubspot_deals.launcher.folder import LauncherFolder

RUN = "0b5e1f7c-9a3d-4e1b-8a50-6a1f4f3f7a11"


@pytest.fixture
def folder(tmp_path: Path) -> LauncherFolder:
    folder = LauncherFolder(tmp_path / "launcher")
    folder.create()
    return folder


def test_nobody_else_may_enter(folder: LauncherFolder) -> None:
    folder.path.chmod(0o755)

    folder.create()

    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.socket.parent.stat().st_mode) == 0o700


def test_a_folder_with_a_long_name_has_its_socket_elsewhere(tmp_path: Path) -> None:
    deep = LauncherFolder(tmp_path / ("long" * 40))

    deep.create()

    assert len(os.fsencode(deep.socket)) <= 100
    assert stat.S_IMODE(deep.socket.parent.stat().st_mode) == 0o700
    assert deep.socket != LauncherFolder(tmp_path / ("long" * 41)).socket
    deep.socket.parent.rmdir()


def test_a_run_has_one_worker(folder: LauncherFolder) -> None:
    claimed = folder.claim(RUN)

    assert claimed is not None
    assert folder.claim(RUN) is None
    assert folder.is_alive(RUN)
    os.close(claimed)


def test_somebody_who_looks_does_not_keep_a_run_from_being_claimed(folder: LauncherFolder) -> None:
    claimed = folder.claim(RUN)
    assert claimed is not None
    fcntl.flock(claimed, fcntl.LOCK_SH)
    letting_go = threading.Timer(0.01, os.close, [claimed])
    letting_go.start()

    again = folder.claim(RUN)

    letting_go.join()
    assert again is not None
    os.close(again)


def test_a_worker_is_found_as_long_as_it_lives_whoever_started_it(folder: LauncherFolder) -> None:
    claimed = folder.claim(RUN)
    assert claimed is not None
    pid = os.fork()
    if pid == 0:
        signal.pause()
    folder.sign(claimed, pid)
    os.close(claimed)

    assert folder.find_worker(RUN) == pid
    assert list(folder.run_ids()) == [RUN]

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert folder.find_worker(RUN) is None
    assert not folder.is_alive(RUN)


def test_a_run_that_nobody_has_heard_of_has_no_worker(folder: LauncherFolder) -> None:
    assert folder.find_worker(RUN) is None
    folder.forget(RUN)


def test_what_a_file_said_before_is_forgotten(folder: LauncherFolder) -> None:
    first = folder.claim(RUN)
    assert first is not None
    folder.sign(first, 1234567)
    os.close(first)

    second = folder.claim(RUN)

    assert second is not None
    assert folder.is_alive(RUN)
    assert folder.find_worker(RUN) is None
    os.close(second)


@pytest.mark.parametrize("name", ["../passwd", "", "a/b", "."])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder: LauncherFolder, name: str) -> None:
    with pytest.raises(ValueError, match="not a run id"):
        folder.is_alive(name)
