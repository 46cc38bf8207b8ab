"""Workers' temporary folders, tidied up also after workers that were killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

_PREFIX = "fc4d-worker-"
_NAME = re.compile(_PREFIX + r"(\d+)-\w+")


def open_scratch() -> Path:
    """A new folder of this process's. Folders of processes that are gone are deleted on the way."""
    parent = Path(tempfile.gettempdir())
    for entry in parent.glob(_PREFIX + "*"):
        match = _NAME.fullmatch(entry.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))


def empty_scratch(folder: Path) -> None:
    """Delete what is in the folder: a long-lived worker's portrait is through."""
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def close_scratch(folder: Path) -> None:
    """Delete the folder; it may be gone already."""
    shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Whether the process exists; of another user's we cannot delete folders anyway."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
