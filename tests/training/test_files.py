"""Files that are written as a whole, and the lock of a folder."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from ddpg_jax.training.files import error_that_names, whole_file, write_text
from ddpg_jax.training.folder_lock import FolderLock


def test_text_is_written_in_utf8_and_its_folder_is_made(tmp_path):
    write_text(tmp_path / "a/b/c.txt", "−1\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "−1\n".encode()
    assert os.listdir(tmp_path / "a/b") == ["c.txt"]


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


def test_reader_sees_the_earlier_file_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_file_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OSError, match="run could not be written: Is a directory"):
        write_text(tmp_path / "run", "text")
    assert os.listdir(tmp_path) == ["run"]


def test_error_without_a_reason_of_the_system_keeps_its_own():
    with pytest.raises(OSError, match="x could not be read: no reason"), error_that_names("x", "read"):
        raise OSError("no reason")


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
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path).acquire()
    lock.release()
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_costs_a_note(tmp_path, monkeypatch, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert lock.note == f"{tmp_path} cannot be locked ({os.strerror(number)}): use it in one process at a time"
    lock.release()


def test_folder_that_is_missing_cannot_be_locked(tmp_path):
    with pytest.raises(FileNotFoundError):
        FolderLock(tmp_path / "none").acquire()
