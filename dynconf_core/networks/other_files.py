"""Files that hold a network in another form than weights that ``torch.save`` wrote: what they are, and what to do."""

import zipfile
from pathlib import Path

HDF5, NUMPY = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"
_ARRAYS = (
    "save the arrays as a state dict, torch.save({name: torch.from_numpy(array) for name, array in ...}, PATH), with the names "
    "of the network's state_dict()"
)


def other_kind(path: Path) -> str | None:
    """What a file is and the remedy, in words that follow its name; None if it is nothing that is known here."""
    with path.open("rb") as file:
        begin = file.read(len(HDF5))
    if begin == HDF5:
        return "is an HDF5 file: read a network of NIR by from_nir(PATH); of other programs, save the weights by torch.save"
    if begin.startswith(NUMPY):
        return f"is an array of numpy: {_ARRAYS}"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive raises BadZipFile, NotImplementedError, UnicodeDecodeError, ...
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"is an .npz of arrays: {_ARRAYS}"
    if any("/code/" in name for name in names):
        return "is TorchScript: save the state_dict() of the nn.Module that it was made of, or that of torch.jit.load(PATH)"
    if any("/models/" in name or name.endswith("/archive_format") for name in names):
        return "is an exported program: save the state_dict() of its nn.Module, or torch.export.load(PATH).state_dict"
    return None
