"""Folders of arrays that Orbax writes and reads, each by one process alone; a checksum tells a damaged one."""

import functools
import logging
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")


def write_item(path: Path, content: dict[str, Any]) -> None:
    """A tree of arrays, in a folder that is there whole or not at all.

    Raises:
        OSError: if there is no room for it; otherwise whatever Orbax and TensorStore raise.
    """
    free, size = shutil.disk_usage(path.parent).free, sum(leaf.nbytes for leaf in jax.tree.leaves(content))
    if free < size:
        raise OSError(f"it takes {size / 2**20:,.1f} MiB, the disk has {free / 2**20:,.1f} MiB")
    tree = content | {"checksum": np.array([_checksum(content)], np.uint32)}
    with _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), args=_orbax().args.PyTreeSave(_writable(tree)))


def read_item(path: Path) -> dict[str, Any]:
    """What `write_item` wrote; raises whatever Orbax does, or ValueError, if that is no longer there."""
    ocp = _orbax()
    with _checkpointer() as checkpointer:
        there = checkpointer.metadata(path.absolute()).item_metadata
        if there is None:
            raise ValueError("its description is missing or damaged")
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), there.tree)
        content: dict[str, Any] = checkpointer.restore(
            path.absolute(), args=ocp.args.PyTreeRestore(restore_args=as_numpy)
        )
    checksum = content.pop("checksum").item()
    if _checksum(content) != checksum:
        raise ValueError("its checksum does not match")
    return content


def as_os_error(action: Callable[[], T]) -> T:
    """What a step of writing a checkpoint returns; Orbax and TensorStore raise errors of their own."""
    try:
        return action()
    except Exception as error:
        raise OSError(f"the checkpoint could not be written: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What an error comes down to: TensorStore wraps that of the operating system in a page of text."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    if found is not None:
        return os.strerror(int(found[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(" [tensorstore_spec")[0].rpartition('": ')[2][:200]


def _checkpointer() -> Any:
    """Orbax, writing or reading in this process alone; uncompressed, because these numbers hardly shrink and
    compressing them takes half of the time.
    """
    ocp, process = _orbax(), jax.process_index()
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (np.ndarray, handlers.NumpyHandler()),
        (jax.Array, handlers.ArrayHandler(primary_host=process, replica_id=process, use_replica_parallel=False)),
    )
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process_{process}"
    )
    handler = ocp.PyTreeCheckpointHandler(
        use_compression=False, multiprocessing_options=alone, type_handler_registry=registry
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _writable(tree: Any) -> Any:
    """The arrays in the form in which Orbax lets this process write them.

    Of several processes, only the first may write NumPy arrays, but each may write a replica of a JAX array that all
    have. So this process's arrays become "the replica" of that number.
    """
    if jax.process_count() == 1:
        return tree
    devices: dict[int, jax.Device] = {}
    for device in jax.devices():
        devices.setdefault(device.process_index, device)
    mesh = Mesh(np.array([devices[process] for process in sorted(devices)]), ("processes",))
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(replicated, np.asarray(x)), tree)


def prepare() -> None:
    """Loads what takes a while to import, and is not always needed."""
    _orbax()


@functools.cache
def _orbax() -> Any:
    """Orbax, imported when it is needed first.

    It and TensorStore report an error that they raise several times more, on their own, from threads and from event
    loops that are closed by then. That is silenced: one line is what the user needs.
    """
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    import orbax.checkpoint

    sys.unraisablehook = report_others
    logging.getLogger("asyncio").addFilter(lambda record: not re.search("orbax|OCDBT", record.getMessage()))
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return orbax.checkpoint


def _checksum(content: dict[str, Any]) -> int:
    checksum = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(content):
        array = np.ascontiguousarray(leaf)
        checksum = zlib.crc32(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum
