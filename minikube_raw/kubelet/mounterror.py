"""Why a pod's volume cannot be had: what every kind of volume raises, and the FailedMount Event says."""

from __future__ import annotations


class MountError(Exception):
    """A volume cannot be set up; the text is the FailedMount Event's."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')
