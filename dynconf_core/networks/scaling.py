"""The width of a reduced network."""

SMALLEST = 4


def scaled(channels: int, width: float) -> int:
    """``channels`` times the factor ``width``, rounded, at least four."""
    return max(SMALLEST, round(channels * width))
