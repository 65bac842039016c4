"""Named NumPy arrays in one safetensors file, with a checksum that tells whether the file is damaged."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from ddpg_jax.processes.files import write_durably


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any] | None = None) -> None:
    """Writes arrays of any shapes, also empty ones, and waits until they have reached the disk.

    Args:
        path: the file.
        arrays: booleans, integers, or floating-point or complex64 numbers, by their names.
        description: values that JSON can hold, kept in the file's metadata.

    Raises:
        OSError: if the file cannot be written.
    """
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(description)
    metadata = {"description": text, "crc32": _checksum(ordered, text)}
    write_durably(path, safetensors.numpy.save(ordered, metadata))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Returns the arrays and the description that `write_arrays` wrote.

    Raises:
        ValueError: if the file is missing, cannot be read, or holds anything else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    text = metadata.get("description", "")
    if metadata.get("crc32") != _checksum(arrays, text):
        raise ValueError(f"the checksum of {path.name} does not match")
    return arrays, json.loads(text)


def _checksum(arrays: Mapping[str, np.ndarray], text: str) -> str:
    checksum = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return f"{checksum:08x}"
