"""Downloads Imagenette (the 160 px version) with torchvision, which knows its address and checks the archive's MD5."""

from collections.abc import Callable
from pathlib import Path

from dynconf_core.data.imagenette import LAYOUTS, check
from dynconf_core.errors import InputError
from dynconf_core.libraries import torchvision

ADDRESS = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"


def fetch_imagenette(root: Path, *, say: Callable[[str], None]) -> None:
    """Create ``root/imagenette2-160``, or report that Imagenette is already there.

    Raises:
        InputError: if the existing files are damaged, or the archive cannot be downloaded or holds the wrong files.
    """
    there = next((root / layout for layout in LAYOUTS if (root / layout).is_dir()), None)
    if there is not None:
        try:
            check(root)
        except InputError as error:
            raise InputError(f"{error} Or delete {there} and run this again.") from error
        say(f"Imagenette is already in {there} and complete; nothing to do.")
        return
    datasets = torchvision().datasets
    say("Downloading Imagenette, 160 px (94 MB), through torchvision.")
    try:
        datasets.Imagenette(root, split="train", size="160px", download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"Imagenette cannot be downloaded ({error}): unpack {ADDRESS} into {root} yourself.") from error
    check(root)
    say(f"Imagenette is in {root / 'imagenette2-160'} and complete.")
