"""Named NumPy arrays in one safetensors file, which is written and read piece by piece and knows when it is damaged.

The last tensor, `checksum`, is the CRC-32 of every byte of the file before it.
"""

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ddpg_jax.training.files import error_that_names, whole_file


class ArrayPieces(NamedTuple):
    """An array that is written piece by piece."""

    name: str
    dtype: Any
    """Booleans, integers, floats, or complex64."""
    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]
    """Concatenated along axis 0, they are the array; a generator makes each when it is written."""


def whole(name: str, array: Any) -> ArrayPieces:
    """Returns an array that is written in one piece."""
    array = np.asarray(array)
    return ArrayPieces(name, array.dtype, array.shape, [array])


def write_arrays(path: Path, description: Any, arrays: Sequence[ArrayPieces]) -> None:
    """Writes arrays of different names, and a description in JSON; it needs memory for one piece at a time.

    Raises:
        OSError: if the file cannot be written; the message names it. The earlier file stays until the new one is whole.
        TypeError: if a piece does not have its array's dtype.
        ValueError: if the pieces of an array do not have its size.
    """
    header, size = _header(description, arrays)
    with whole_file(path, durable=True) as file:
        file.write(header)
        checksum = zlib.crc32(header)
        for array in arrays:
            for piece in array.pieces:
                data: Any = piece.astype(array.dtype, order="C", casting="no", copy=False)
                file.write(data)
                checksum = zlib.crc32(data, checksum)
        if file.tell() != len(header) + size:
            raise ValueError(f"the pieces for {path} do not have the shapes of their arrays")
        file.write(checksum.to_bytes(4, "little"))


def _header(description: Any, arrays: Sequence[ArrayPieces]) -> tuple[bytes, int]:
    """Returns the header of the safetensors format, behind its length, and the bytes of the arrays that follow."""
    header: dict[str, Any] = {"__metadata__": {"description": json.dumps(description)}}
    start = end = 0
    for name, given, shape, _ in (*arrays, whole("checksum", np.zeros(1, np.uint32))):
        dtype = np.dtype(given)
        start, end = end, end + math.prod(shape) * dtype.itemsize
        kind = "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, start


class ArrayFile:
    """The arrays of an undamaged file. They are read from the disk each time they are asked for."""

    def __init__(self, file: Any) -> None:
        """Wraps the file that `safetensors.safe_open` returned."""
        self._file = file
        self.names: tuple[str, ...] = tuple(name for name in file.keys() if name != "checksum")  # noqa: SIM118

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """Returns an array; with `rows`, only these entries of its axis 0."""
        return self._file.get_tensor(name) if rows is None else self._file.get_slice(name)[rows]


def read_arrays(path: Path) -> tuple[Any, ArrayFile]:
    """Checks a file that `write_arrays` wrote, and returns its description and its arrays.

    Raises:
        ValueError: if the file is damaged, or was not written by `write_arrays`.
        OSError: if the file cannot be read; the message names it.
    """
    try:
        with error_that_names(path, "read"):
            data: Any = np.memmap(path, mode="r")
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise ValueError("its checksum does not match")
        file = safe_open(path, framework="numpy")
        return json.loads(file.metadata()["description"]), ArrayFile(file)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # the last four bytes matched by chance
        raise ValueError(f"{path} is damaged: {error}") from error
