"""An agent that the kernel kills at one persisted transition: `python -m tests.support.dying_agent
DEVICE_YAML STATE [COUNT]`.

It is the production agent with another state store: one that sends SIGKILL to its own process as
soon as a transition to STATE is on disk, the COUNT-th time (default 1).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from edgectl.agent.config import load
from edgectl.agent.loop import poll_once
from edgectl.agent.state import StateStore

if TYPE_CHECKING:
    from edgectl.agent.state import Failed, Operation, PollRecord


class DyingStore(StateStore):
    """Kills this process after a certain transition was persisted."""

    state = ""
    left = 1

    def enter(
        self,
        operation: Operation,
        *,
        message: str = "",
        remember: tuple[Failed, ...] = (),
        poll: PollRecord | None = None,
    ) -> None:
        super().enter(operation, message=message, remember=remember, poll=poll)
        if operation.state == DyingStore.state:
            DyingStore.left -= 1
            if DyingStore.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Poll once, or die trying."""
    DyingStore.state = sys.argv[2]
    DyingStore.left = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    poll_once(load(Path(sys.argv[1])), Event(), DyingStore)


if __name__ == "__main__":
    main()
