"""The one exception for what a user gave and cannot work."""


class InputError(ValueError):
    """Something the user gave cannot work: the message names the field, its value and the remedy.

    Raised before anything long is started. The command line prints the message alone and exits with 2.
    """
