"""What can be added to a store, and which of it a path is."""

from __future__ import annotations

from pathlib import Path

from pydec.errors import ConfigError
from pydec.store.inputs.base import Input

FORMATS = ("files", "images", "idx", "numpy", "parquet", "arrow", "text", "python")
_SUFFIXES = {".npy": "numpy", ".npz": "numpy", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}


def open_input(path: str, form: str = "", *, ragged: bool = False) -> Input:
    """What is to be added.

    Args:
        path: of a file or folder; or ``module:function``.
        form: one of ``FORMATS``; "" finds out: a folder whose files are all IDX, NumPy, Parquet or Arrow
            files is one of those, one of folders of images is "images", any other is "files", and
            a file whose name says nothing is one sample.
        ragged: for ``module:function``: arrays differ in length.

    Raises:
        ConfigError: there is no such path or function, or it is not what ``form`` says.
        SetupError: what it needs is not installed.
        StoreError: it cannot be read.
    """
    where = Path(path)
    if form == "python" or (not form and not where.exists() and ":" in path):
        from pydec.store.inputs.python import Returned

        return Returned(path, ragged)
    if not where.exists():
        raise ConfigError(f"there is no file or folder {path!r}; a function is named module:function")
    form = form or _found(where)
    if form in ("files", "images"):
        from pydec.store.inputs.files import Files

        if form == "images" and not where.is_dir():
            raise ConfigError(f"--format images needs a folder of folders of images, {path} is a file")
        return Files(where, labelled=form == "images")
    paths = _paths(where, form)
    if form == "idx":
        from pydec.store.inputs.idx import idx

        return idx(paths)
    if form == "numpy":
        from pydec.store.inputs.numpy_files import numpy_files

        return numpy_files(paths)
    if form == "text":
        from pydec.store.inputs.text import Lines

        return Lines(paths, where if where.is_dir() else where.parent)
    from pydec.store.inputs.arrow import Tables

    return Tables(paths)


def _found(where: Path) -> str:
    from pydec.store.inputs.files import is_image_folder
    from pydec.store.inputs.idx import is_idx

    if where.is_dir():
        inside = _visible(where)
        suffixes = {_SUFFIXES.get(path.suffix, "") if path.is_file() else "" for path in inside}
        if len(suffixes) == 1 and suffixes != {""}:
            return suffixes.pop()
        if inside and all(path.is_file() and is_idx(path) for path in inside):
            return "idx"
        return "images" if is_image_folder(where) else "files"
    if where.suffix in _SUFFIXES:
        return _SUFFIXES[where.suffix]
    return "idx" if is_idx(where) else "files"


def _paths(where: Path, form: str) -> list[Path]:
    if not where.is_dir():
        return [where]
    found = _visible(where)
    if not found:
        raise ConfigError(f"{where} is empty: there is nothing to add as {form}")
    folders = [path for path in found if not path.is_file()]
    if folders:
        raise ConfigError(
            f"{folders[0]} is no file, and --format {form} takes files alone; name one, or use --format files"
        )
    return found


def _visible(where: Path) -> list[Path]:
    return sorted(path for path in where.iterdir() if not path.name.startswith("."))
