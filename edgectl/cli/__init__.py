"""The command line: one module per verb. Alone in printing, prompting and exiting."""

from __future__ import annotations


def main() -> None:
    """Run edgectl and exit with the code that `edgectl.errors` documents."""
    from edgectl.cli.root import root

    root()
