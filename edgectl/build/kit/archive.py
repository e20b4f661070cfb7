"""Archives and directories from outside: bounded and confined before anything reads them."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

MAX_ENTRIES = 10_000
MAX_BYTES = 4 << 30


def check_zip(
    path: Path, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
) -> list[zipfile.ZipInfo]:
    """The entries of a ZIP archive, none of which leaves its directory or is a link.

    Sizes are those that the archive declares, beyond which `zipfile` reads no entry. Refuses what
    is no ZIP (`not-an-archive`), is too large (`archive-too-large`) or names a place outside
    (`archive-escapes`).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    # The last is what `zipfile` raises of an archive that asks for a newer reader.
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise RefusalError(
            "not-an-archive",
            f"{path.name} is no readable ZIP archive: {first_line(error)}",
            hint="is the file whole? save the model again",
        ) from error
    size = sum(entry.file_size for entry in entries)
    if len(entries) > max_entries or size > max_bytes:
        raise RefusalError(
            "archive-too-large",
            f"{path.name} unpacks to {len(entries)} files of {size} bytes, more than "
            f"{max_entries} files or {max_bytes} bytes",
            hint="an archive of a model is smaller than this: is the file what it should be?",
        )
    for entry in entries:
        if not is_inside(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
            raise RefusalError(
                "archive-escapes",
                f"{path.name} holds {entry.filename!r}, which is outside the archive or a link",
                hint="do not use this file: no tool makes such an archive of a model",
            )
    return entries


def check_tree(
    directory: Path, *, max_files: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
) -> dict[str, Path]:
    """Every file below a directory by its relative path with `/`, sorted.

    Refuses links that lead outside, special files (`directory-escapes`) and too much
    (`directory-too-large`).
    """
    root = directory.resolve()
    files: dict[str, Path] = {}
    size = 0
    for path in sorted(directory.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(directory).as_posix()
        if not path.is_file() or (path.is_symlink() and not _leads_inside(path, root)):
            raise RefusalError(
                "directory-escapes",
                f"{name} is a link that leads outside, or no file",
                hint="copy the model's own files into its directory",
            )
        size += path.stat().st_size
        files[name] = path
        if len(files) > max_files or size > max_bytes:
            raise RefusalError(
                "directory-too-large",
                f"the model's directory holds more than {max_files} files or {max_bytes} bytes",
                hint="point source.path at the model alone",
            )
    return files


def _leads_inside(path: Path, root: Path) -> bool:
    return root in path.resolve().parents


def is_inside(name: str) -> bool:
    """Whether a relative path, as archives and manifests write it, stays below its root."""
    parts = PurePosixPath(name).parts
    absolute = name.startswith("/") or "\\" in name or "\0" in name or ":" in name[:2]
    return bool(parts) and not absolute and ".." not in parts
