"""The exception raised for unusable user input."""


class InputError(ValueError):
    """Unusable user input: the message names the field, its value and the remedy.

    Raised before any long work starts. The command line prints only the message and exits with status 2.
    """
