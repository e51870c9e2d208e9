"""Trust in a run folder: code that it names is imported only where its reader made the folder, or says so."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evocompress.errors import RunError
from evocompress.support.user_objects import is_reference
from evocompress.support.wording import listed

__all__ = ["check_trust", "imports_of", "made_by"]


def made_by() -> str:
    """A name for this user on this machine, or on all that share a home; a random one, made when it is first asked for.

    Empty where it cannot be kept: then nothing counts as made here.
    """
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    path = Path(state, "evocompress", "made-by")
    with contextlib.suppress(OSError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), path.open("x", encoding="ascii") as file:
                file.write(secrets.token_hex(16))
        # Folders are sent to others, and so hold no secret.
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.stat().st_size else ""
    return ""


def imports_of(config: Mapping[str, Any]) -> list[str]:
    """What a configuration, as JSON has it, names of code that is not evocompress's own: `module:name`."""
    teacher = config.get("teacher")
    named = [config.get(key) for key in ("model", "data", "task")]
    named.append(teacher.get("model") if isinstance(teacher, Mapping) else None)
    return [name for name in dict.fromkeys(named) if isinstance(name, str) and is_reference(name)]


def check_trust(folder: str | os.PathLike[str], run_json: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a folder whose configuration names code to import, unless this user made the folder.

    Raises:
        RunError: Names the code.
    """
    names = imports_of(config)
    maker = made_by()
    if names and not (maker and run_json.get("made_by") == maker):
        raise RunError(
            f"{os.fspath(folder)} was made elsewhere, and would import and run {listed(names)} from here. "
            "Where you know that code, say trusted=True."
        )
