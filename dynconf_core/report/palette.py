"""The colours of what charts show, by its name in their legends."""

from dynconf_core.figures.canvas import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION

FIXED, PALE = "#8A8F98", "#B8BEC6"
SERIES = {"with early exit": BLUE, "stopped at a fixed step": FIXED, "oracle, any budget": GREEN}
"""Lines of accuracy against latency."""
MARKED = {"chosen rule": VERMILLION, "first step as accurate as T": INK}
"""Points of accuracy against latency."""
PAPER = {"the paper": PURPLE}
AGAINST = {"against T": BLUE, "against the iso-accuracy step": SKY, "oracle, against T": PALE}
"""What the steps saved are compared with."""
DROPS = {"0 points": "#0B2E4F", "0.1 points": BLUE, "0.5 points": SKY, "1 point": ORANGE}
"""What a rule may lose."""
CERTIFYING = {"measured": BLUE, "certified up to": VERMILLION}
ANSWERS = {"right answer": BLUE, "wrong answer": VERMILLION}
