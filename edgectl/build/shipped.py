"""Where builders and templates are looked for: the user's repository first, then our copies."""

from __future__ import annotations

from pathlib import Path

import edgectl


def search_path(kind: str, repository: Path | None = None) -> tuple[Path, ...]:
    """Folders for `builders` or `templates`, first match first.

    Ours are inside the package when it is installed, and beside it in a checkout.
    """
    package = Path(edgectl.__file__).parent
    shipped = package / f"_{kind}"
    ours = shipped if shipped.is_dir() else package.parent / kind
    return (ours,) if repository is None else (repository / kind, ours)
