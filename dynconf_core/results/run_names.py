"""What a reproduction and its settings are called: by the seed, and the fields whose values differ from the profile's."""

import hashlib
import re
from collections.abc import Mapping

from dynconf_core.schemes.field import Value, as_written

LONGEST = 80
"""Characters of the longest name of a folder, without the time; a longer one ends in a digest."""
UNUSUAL = re.compile(r"[^A-Za-z0-9._+=-]+")
"""What a shell, a file system or a person may stumble over."""


def titled(profile: str, seed: int, overrides: Mapping[str, Value]) -> str:
    """The name for people, such as ``smoke, seed 0, time_steps=16``."""
    return ", ".join([profile, f"seed {seed}", *(f"{name}={as_written(value)}" for name, value in overrides.items())])


def variant(seed: int, overrides: Mapping[str, Value]) -> str:
    """What tells a setting from the same one for seed 0 without overrides, such as ``seed 1, time_steps=16``; "" if nothing."""
    seeded = [f"seed {seed}"] if seed else []
    return ", ".join([*seeded, *(f"{name}={as_written(value)}" for name, value in overrides.items())])


def folder_name(profile: str, seed: int, overrides: Mapping[str, Value]) -> str:
    """The name for files, such as ``smoke-seed0-time_steps=16``: plain, and different for different values."""
    whole = "-".join([profile, f"seed{seed}", *(f"{name}={as_written(value)}" for name, value in overrides.items())])
    name = UNUSUAL.sub("_", whole)
    if name == whole and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 1 - len(digest)]}-{digest}"
