"""Named NumPy arrays in one safetensors file, which is written and read piece by piece and knows when it is damaged.

The last tensor, `checksum`, is the CRC-32 of every byte of the file before it.
"""

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ddpg_jax.training.files import error_that_names, whole_file

_CHECKSUM = "checksum"


class ArrayPieces(NamedTuple):
    """An array that is written piece by piece."""

    name: str
    dtype: Any
    """Booleans, integers, floats, or complex64."""
    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]
    """Arrays which, concatenated along axis 0, are the array; a generator makes each when it is written."""


def whole(name: str, array: Any) -> ArrayPieces:
    """Returns an array that is written in one piece."""
    array = np.asarray(array)
    return ArrayPieces(name, array.dtype, array.shape, [array])


def write_arrays(path: Path, description: Any, arrays: Sequence[ArrayPieces]) -> None:
    """Writes arrays in their order; it needs memory for one piece at a time, and waits until the disk has the file.

    Args:
        path: the file, which is replaced only when the new one is complete.
        description: values that JSON can hold, kept in the file's metadata.
        arrays: the arrays, whose names differ.

    Raises:
        OSError: if the file cannot be written; the message names it.
        ValueError: if the pieces of an array do not have its dtype and shape.
    """
    with whole_file(path, durable=True) as file:
        checksum = 0
        pieces: Iterable[bytes | memoryview] = chain([_header(description, arrays)], *map(_pieces, arrays))
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
            file.write(piece)
        file.write(checksum.to_bytes(4, "little"))


def _header(description: Any, arrays: Sequence[ArrayPieces]) -> bytes:
    """Returns the header of the safetensors format, behind its length: a dtype, shape and offsets for each name."""
    header: dict[str, Any] = {"__metadata__": {"description": json.dumps(description)}}
    end = 0
    for name, given, shape, _ in (*arrays, whole(_CHECKSUM, np.zeros(1, np.uint32))):
        if name in header:
            raise ValueError(f"{name} is the name of two arrays")
        dtype = np.dtype(given)
        start, end = end, end + math.prod(shape) * dtype.itemsize
        kind = "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(array: ArrayPieces) -> Iterator[memoryview]:
    """Yields the bytes of an array."""
    rows = 0
    for piece in array.pieces:
        if (piece.dtype, piece.ndim, piece.shape[1:]) != (array.dtype, len(array.shape), tuple(array.shape[1:])):
            raise ValueError(
                f"a piece of {array.name} is {piece.dtype}{list(piece.shape)}, but must be a piece of "
                f"{np.dtype(array.dtype)}{list(array.shape)}"
            )
        rows += len(piece) if piece.ndim else 1
        yield np.asarray(piece, order="C").reshape(-1).view(np.uint8).data
    if rows != (array.shape[0] if array.shape else 1):
        raise ValueError(f"{array.name} has {rows} rows, but must have the shape {list(array.shape)}")


class ArrayFile:
    """The arrays of an undamaged file. They are read from the disk each time they are asked for."""

    def __init__(self, file: Any) -> None:
        """Args:
        file: what `safetensors.safe_open` returned.
        """
        self._file = file
        self.names: tuple[str, ...] = tuple(name for name in file.keys() if name != _CHECKSUM)  # noqa: SIM118

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """Returns an array; with `rows`, only these entries of its axis 0."""
        return self._file.get_tensor(name) if rows is None else self._file.get_slice(name)[rows]


def read_arrays(path: Path) -> tuple[Any, ArrayFile]:
    """Checks a file that `write_arrays` wrote, and returns its description and its arrays.

    Raises:
        ValueError: if the file is damaged, or was not written by `write_arrays`.
        OSError: if the file cannot be read; the message names it.
    """
    with error_that_names(path, "read"), open(path, "rb") as stream:
        if not _checksum_matches(stream):
            raise ValueError(f"{path} is damaged: its checksum does not match")
    try:
        file = safe_open(path, framework="numpy")
        return json.loads(file.metadata()["description"]), ArrayFile(file)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # the last four bytes matched by chance
        raise ValueError(f"{path} is damaged: {error}") from error


def _checksum_matches(file: BinaryIO) -> bool:
    """Returns whether the last four bytes of a file are the CRC-32 of all bytes before them."""
    checksum, last = 0, b""
    while data := file.read(2**22):
        data = last + data
        checksum, last = zlib.crc32(memoryview(data)[:-4], checksum), data[-4:]
    return checksum.to_bytes(4, "little") == last
