"""Files that survive a crash: a folder is replaced whole or not at all.

A reader finds the old folder or the new one, never a mixture, also after ``kill -9`` or a power
cut. The steps of :func:`write_tree_atomically` and what :func:`resolve_tree` makes of a crash
after each of them:

=====================================  ==========================================
crash                                  found
=====================================  ==========================================
while the temporary sibling is filled  the old folder; the sibling is removed later
after ``target -> .target.previous``   the old folder, moved back into place
after ``temporary -> target``          the new folder; the old one is removed later
=====================================  ==========================================
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from sczoo.errors import ArtefactError, CorruptedArtefactError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "lock_beside",
    "read_regular_file",
    "remove_orphans",
    "resolve_tree",
    "sha256_bytes",
    "sha256_file",
    "write_file_atomically",
    "write_tree_atomically",
]

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hash bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hash a file in chunks, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with _open_regular(Path(path)) as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_regular_file(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Read a file that must be a plain file (no link, no device) of at most ``max_bytes``.

    Raises
    ------
    CorruptedArtefactError
        If the file is missing, is not a plain file, or is larger than allowed.
    """
    path = Path(path)
    with _open_regular(path) as handle:
        data = handle.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise CorruptedArtefactError(
            f"{path.name} in {path.parent} is larger than the {max_bytes} bytes that such a file "
            "may have; it was not read."
        )
    return data


def _open_regular(path: Path):
    # Without O_NONBLOCK the open of a named pipe would wait for ever; O_NOFOLLOW refuses a link
    # that replaced the file after any earlier check.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise CorruptedArtefactError(
            f"{path.name} is missing in {path.parent}; fetch or save the artefact again."
        ) from error
    except (OSError, ValueError) as error:
        raise CorruptedArtefactError(
            f"{path.name} in {path.parent} cannot be opened as a plain file ({error}); links and "
            "devices are refused."
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptedArtefactError(
            f"{path.name} in {path.parent} is not a plain file; links, pipes and devices are "
            "refused."
        )
    return os.fdopen(descriptor, "rb")


def lock_beside(target: str | os.PathLike[str], *, timeout: float = 600.0) -> FileLock:
    """Lock, between processes, whatever changes ``target``: ``.<name>.lock`` beside it."""
    target = Path(target)
    return FileLock(target.parent / f".{target.name}.lock", timeout=timeout)


def write_tree_atomically(
    target: str | os.PathLike[str], write: Callable[[Path], None], *, overwrite: bool = False
) -> None:
    """Create or replace the folder ``target`` in one step.

    Parameters
    ----------
    target
        The folder to write.
    write
        Called with an empty temporary folder beside ``target``; it fills that folder.
    overwrite
        Replace an existing folder. Otherwise an existing folder is an error.

    Raises
    ------
    ArtefactError
        If ``target`` exists and ``overwrite`` is false, is not a folder, or cannot be written.
        Nothing is left behind then, and an old folder is as it was.
    """
    target = _absolute(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock_beside(target):
            _recover(target)
            _check_replaceable(target, overwrite)
            _replace_tree(target, write)
    except (OSError, TimeoutError) as error:
        raise ArtefactError(
            f"The folder {target} could not be written ({error}); nothing was changed. Check free "
            "space and permissions, then save again."
        ) from error


def _replace_tree(target: Path, write: Callable[[Path], None]) -> None:
    temporary = target.parent / f".{target.name}.tmp-{secrets.token_hex(8)}"
    try:
        temporary.mkdir()
        write(temporary)
        _fsync_tree(temporary)
        previous = _previous(target)
        had_old = target.exists()
        if had_old:
            os.rename(target, previous)
        try:
            os.rename(temporary, target)
        except OSError:
            if had_old:
                os.rename(previous, target)
            raise
        _fsync_directory(target.parent)
        if had_old:
            shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def resolve_tree(target: str | os.PathLike[str]) -> Path:
    """Find the folder that a crashed :func:`write_tree_atomically` left, and put it in place.

    Returns the folder to read: ``target`` itself, or the previous one where the disk is read-only.

    Raises
    ------
    ArtefactError
        If there is neither ``target`` nor a previous state of it.
    """
    target = _absolute(target)
    if not target.is_dir():
        if _previous(target).is_dir():
            try:
                with lock_beside(target):  # waits for a writer that is between its two renames
                    _recover(target)
            except (OSError, TimeoutError):
                if _previous(target).is_dir():
                    return _previous(target)
    if not target.is_dir():
        what = "is not a folder" if os.path.lexists(target) else "does not exist"
        raise ArtefactError(f"{target} {what}; give the path of a folder written by sczoo.")
    return target


def write_file_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Create or replace one file in one step, durable when the call returns."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.tmp-{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _absolute(target: str | os.PathLike[str]) -> Path:
    path = Path(os.path.abspath(target))
    if not path.name:
        raise ArtefactError(f"{path} cannot hold an artefact; name a folder inside it.")
    return path


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _recover(target: Path) -> None:
    """Finish or undo an interrupted replacement; the caller holds the lock."""
    previous = _previous(target)
    if previous.is_dir():
        if os.path.lexists(target):
            shutil.rmtree(previous, ignore_errors=True)
        else:
            os.rename(previous, target)
            _fsync_directory(target.parent)
    remove_orphans(target)


def remove_orphans(target: str | os.PathLike[str]) -> None:
    """Remove what killed writers of ``target`` left beside it; the caller holds the lock."""
    # whoever holds the lock is the only writer, so every temporary sibling is an orphan
    target = Path(target)
    prefix = f".{target.name}.tmp-"
    with os.scandir(target.parent) as entries:
        orphans = [entry for entry in entries if entry.name.startswith(prefix)]
    for orphan in orphans:
        if orphan.is_dir(follow_symlinks=False):
            shutil.rmtree(orphan.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(orphan.path)


def _check_replaceable(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise ArtefactError(
            f"{target} is a file or a link, not a folder; it was left alone. Choose another path."
        )
    if not overwrite:
        raise ArtefactError(
            f"{target} exists already; pass overwrite=True to replace it, or choose another path."
        )


def _fsync_tree(folder: Path) -> None:
    for root, _directories, files in os.walk(folder):
        for name in files:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _fsync_directory(Path(root))


def _fsync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
