import json
import socket
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.folder import DataFolder, StackRunningError
from hubspot_deals.local.stack import StackOptions, running_stack
from hubspot_deals.warehouse.credentials import KeyRing


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    return folder


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_folder_serves_one_stack_at_a_time(folder: DataFolder) -> None:
    refused = pytest.raises(StackRunningError, match="already running")
    with folder.locked(), refused, folder.locked():
        pass
    with folder.locked():
        pass


def test_who_starts_a_second_stack_hears_of_the_first_and_not_of_its_ports(
    folder: DataFolder,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as api, folder.locked():
        second = StackOptions(folder.path, api_port=api.getsockname()[1])
        refused = pytest.raises(StackRunningError, match="already running")
        with refused, running_stack(second, print, lambda: None):
            pytest.fail("it started")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="--data-dir"):
        DataFolder(tmp_path / "file" / "data").create()


def test_encryption_keys_are_made_once_private_and_usable(folder: DataFolder) -> None:
    keys = folder.encryption_keys()

    assert folder.encryption_keys() == keys
    assert mode_of(folder.path / "encryption-keys") == 0o600
    KeyRing.parse(SecretStr(keys))


def test_the_stack_file_is_private_complete_and_withdrawn(folder: DataFolder) -> None:
    folder.publish({"urls": {"api": "http://127.0.0.1:5000"}})

    assert mode_of(folder.stack_file) == 0o600
    assert json.loads(folder.stack_file.read_text())["urls"]["api"] == "http://127.0.0.1:5000"
    folder.withdraw()
    folder.withdraw()
    assert not folder.stack_file.exists()


def test_others_cannot_list_the_folder(folder: DataFolder) -> None:
    assert mode_of(folder.path) in {0o700, 0o711}
    assert mode_of(folder.logs) == 0o700
