from pathlib import Path

import pytest

from hubspot_deals.local import commands
from tests.unit.test_local_environment import ADDRESSES, build

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENT = build({"PYTHONPATH": "/own"})
COMMANDS = [
    *commands.migrate_commands(ENVIRONMENT),
    commands.code_server_command(ADDRESSES, ENVIRONMENT),
    commands.sync_server_command(ADDRESSES, ENVIRONMENT),
    commands.run_host_command(ENVIRONMENT),
    *commands.door_commands(ADDRESSES, ENVIRONMENT),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_no_process_starts_where_a_file_of_the_checkout_replaces_its_settings(command) -> None:
    # Dagster's commands prefer an `.env` there to their environment, and compose needs one.
    assert command.working_folder == Path("/data/dagster_home")
    assert command.environment["PYTHONPATH"] == f"{CHECKOUT}:/own"
    assert "workspace.yaml" not in command.arguments
