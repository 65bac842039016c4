"""Files that are written as a whole, and the lock of a folder."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from ddpg_jax.training.arrays import read_arrays
from ddpg_jax.training.files import whole_file, write_text
from ddpg_jax.training.folder_lock import FolderLock


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("durable", [False, True])
def test_what_ends_the_writing_leaves_the_earlier_file_and_no_draft(tmp_path, error, durable):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(type(error)) as raised, whole_file(path, durable=durable) as file:  # noqa: PT012
        file.write(b"new")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]
    if isinstance(error, OSError):
        assert str(raised.value) == f"{path} could not be written: No space left on device"


def test_text_is_in_utf8_in_a_new_folder_and_replaces_the_earlier_one_when_it_is_complete(tmp_path):
    path = tmp_path / "a/b/table.csv"
    write_text(path, "−1\n")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == "−1\n".encode()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.csv"]


def test_file_that_is_missing_or_a_folder_is_named(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path} could not be written: Is a directory"):
        write_text(tmp_path, "text")
    with pytest.raises(OSError, match="a could not be read: No such file"):
        read_arrays(tmp_path / "a")


HOLD = """
import sys
from pathlib import Path
from ddpg_jax.training.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_lock_names_its_holder_and_ends_with_it(tmp_path):
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    lock = FolderLock(tmp_path)
    with pytest.raises(BlockingIOError):
        lock.acquire()
    assert lock.holder() == str(process.pid)
    process.kill()
    process.communicate()
    lock.acquire()
    assert lock.holder() == str(os.getpid())
    lock.release()
    lock.acquire()
    lock.release()


def test_file_system_without_locks_costs_a_note(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert lock.note == f"{tmp_path} cannot be locked (No locks available): use it in one process at a time"
    lock.release()
