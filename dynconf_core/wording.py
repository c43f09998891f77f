"""Numbers and things in sentences: plurals, articles, and values short enough for a message."""

from pathlib import PurePath

LONGEST = 80
"""Characters of a value in a message."""
_SPELLED = "AEFHILMNORSX"
"""Letters whose names begin with a vowel: an LSTM, an RNN."""
_AN = ("ndarray",)
"""Names whose first letter is read alone: an n-d array."""
_LIKE_YOU = ("uin", "uni", "use")


def counted(count: float, noun: str, plural: str | None = None, form: str = "") -> str:
    """Such as "1 channel" or "3 channels", with the number as ``form`` writes it: "0.5 points", "1 point"."""
    text = format(count, form)
    return f"{text} {noun}" if text == "1" else f"{text} {plural or f'{noun}s'}"


def an(value: object) -> str:
    """The type of a value with its article, such as "an int"; of arrays and tensors with their shape; "None" for None."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    vowels = _SPELLED if name[:2].isupper() else "AEIOU"
    vowel = name in _AN or (name[:1].upper() in vowels and name[:3].lower() not in _LIKE_YOU)
    shape = getattr(value, "shape", None)
    return f"{'an' if vowel else 'a'} {name}{f' {tuple(shape)}' if isinstance(shape, tuple) else ''}"


def told(field: str, value: object) -> str:
    """A field and what is given for it: "time_steps='8'" if that is short, else "time_steps is a Linear"."""
    if value is None or isinstance(value, bool | int | float | str | bytes | PurePath):
        return f"{field}={shown(value)}"
    return f"{field} is {an(value)}"


def shown(value: object) -> str:
    """``repr``, shortened, for messages."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a number of {int(value).bit_length()} bits" if isinstance(value, int) else an(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
