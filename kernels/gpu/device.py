"""The device that kernels are launched on, as far as launches depend on it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from attrs import frozen

from kernels.backends import interpreting


@frozen
class Device:
    """A chip by the name of its tile shapes, and its number of multiprocessors."""

    chip: str
    processors: int
    interpreted: bool = False


def find_device(device: torch.device) -> Device:
    """Describe a tensor's device; a chip without shapes of its own gets those of the next older one."""
    if interpreting():
        return Device("sm_80", processors=1, interpreted=True)
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return Device("gfx942", properties.multi_processor_count)
    chip = "sm_100" if properties.major == 10 else "sm_90" if properties.major == 9 else "sm_80"
    return Device(chip, properties.multi_processor_count)


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Make a tensor's device the current one, on which Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
