"""What is in a file that PyTorch wrote, found out without PyTorch."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgectl.build.kit.archive import check_zip
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from pathlib import Path

MAX_RECORDS = 100_000
"""Each weight is a record."""
MAX_BYTES = 4 << 30
SAVE_AGAIN = (
    "export it where its code is: torch.export.save(torch.export.export(model.eval(), "
    "(example,)), 'model.pt2')"
)


@dataclass(frozen=True, slots=True)
class Archive:
    """A PyTorch archive that is within bounds."""

    path: Path
    form: Literal["program", "script"]
    """A torch.export program, or TorchScript."""
    records: dict[str, str]
    """Record name, without the archive's own directory, to its name in the ZIP."""

    def read(self, record: str, most: int = MAX_BYTES) -> bytes:
        """One record; refuses one that is missing, damaged, or larger than `most` bytes."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                entry = archive.getinfo(self.records[record])
                if entry.file_size > most:
                    raise ValueError(f"{record} has {entry.file_size} bytes, more than {most}")
                return archive.read(entry)
        except KeyError as error:
            raise damaged(f"the record {record!r} is missing") from error
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise damaged(first_line(error)) from error

    def read_all(self, records: list[str]) -> dict[str, bytes]:
        """Several records by name."""
        return {record: self.read(record) for record in records}


def damaged(what: str) -> RefusalError:
    """The refusal of an archive that cannot be read."""
    return RefusalError(
        "does-not-load",
        f"not a readable PyTorch archive: {what}",
        hint=f"is the file whole? else {SAVE_AGAIN}",
    )


def read(path: Path) -> Archive:
    """List an archive and tell its form; refuses pickles unread, and forms without a model."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(2)
        if start[:1] == b"\x80" or start == b"(d":
            raise _pickle("a pickle, as torch.save wrote them before PyTorch 1.6")
        raise damaged("it is no ZIP archive")
    entries = check_zip(path, max_entries=MAX_RECORDS, max_bytes=MAX_BYTES)
    names = [entry.filename for entry in entries if not entry.is_dir()]
    roots = {name.partition("/")[0] for name in names}
    if len(set(names)) != len(names):
        raise damaged("two records have one name")
    if any("/" not in name for name in names):
        records = {name: name for name in names}
    elif len(roots) != 1:
        raise damaged("its records are not in one directory")
    else:
        records = {name.partition("/")[2]: name for name in names}
    return Archive(path, _form(records), records)


def _form(records: dict[str, str]) -> Literal["program", "script"]:
    if any(name.startswith("models/") for name in records):
        return "program"
    if any(name.startswith("code/") for name in records) and "constants.pkl" in records:
        return "script"
    if any(name.startswith("data/aotinductor/") for name in records):
        raise RefusalError(
            "compiled-code",
            "the package holds machine code of AOTInductor, which runs as it is loaded, and no "
            "program",
            hint=f"give the program that it was compiled from: {SAVE_AGAIN}",
        )
    if "serialized_exported_program.json" in records:
        raise RefusalError(
            "too-old",
            "the program was saved by PyTorch 2.7 or older, with its weights in a pickle",
            hint="load it there and save it by torch.export.save of PyTorch 2.9 or newer",
        )
    if "data.pkl" in records:
        raise _pickle("what torch.save wrote: a pickle of a module or of a state dict")
    raise damaged("it holds neither a torch.export program nor TorchScript")


def _pickle(what: str) -> RefusalError:
    return RefusalError(
        "pickle",
        f"the file is {what}; loading one runs the code in it, and a state dict has no graph",
        hint=SAVE_AGAIN,
    )
