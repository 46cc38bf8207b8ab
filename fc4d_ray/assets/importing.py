"""What the commands under ``fc4d assets import`` share.

An importer reads what the user names by the same reader the stage uses, and only then copies, so
that what lies in the assets folder is usable.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from fc4d_ray.errors import StoreError


def copy_checked(source: Path, target: Path) -> Path:
    """Copy a file so that ``target`` is either absent or whole; returns ``target``.

    Raises ``StoreError`` where it cannot be written.
    """
    if target.exists() and target.samefile(source):
        return target
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, scratch)
        os.replace(scratch, target)
    except OSError as error:
        if target.parent.is_dir():
            scratch.unlink(missing_ok=True)
        raise StoreError(f"cannot copy {source} to {target}: {error.strerror}") from error
    return target
