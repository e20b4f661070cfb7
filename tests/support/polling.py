"""A device of the tests polls, in this process."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.loop import poll_once
from edgectl.agent.report import status
from edgectl.errors import EdgectlError

if TYPE_CHECKING:
    from edgectl.agent.config import DeviceConfig
    from edgectl.agent.update import Outcome


def poll(config: DeviceConfig) -> Outcome:
    return poll_once(config, Event())


def refused(config: DeviceConfig) -> EdgectlError:
    with pytest.raises(EdgectlError) as caught:
        poll(config)
    return caught.value


def serving(config: DeviceConfig) -> str | None:
    """The version that `current` leads to."""
    slot = status(config)["slot"]
    return None if slot is None else str(slot["models"][0]["version"])
