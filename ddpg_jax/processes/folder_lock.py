"""A lock that keeps other processes out of a folder."""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks, as Lustre and NFS may be set up."""


class FolderLock:
    """A lock on a folder, which one process at a time can hold. Its file, `.lock`, names the holder.

    The operating system releases the lock when its holder ends, also by `kill -9`, so none is ever left over. The
    package `filelock` makes the same system call, but cannot say which process holds such a lock; and where the call is
    missing it falls back to files that outlive their holder.
    """

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: the folder, which must exist when the lock is acquired.
        """
        self.path = folder / ".lock"
        """The lock's file. It stays when the lock is released."""
        self.note: str | None = None
        """A warning to the user, if the file system has no locks."""
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            BlockingIOError: if another process holds it.
            OSError: if the folder cannot be written.
        """
        file = open(self.path, "a+")  # noqa: SIM115  (the lock is held as long as the file is open)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
                self.note = f"{self.path.parent} cannot be locked ({error.strerror}): use it in one process at a time"
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError:
            file.close()
            raise
        self._file = file

    def holder(self) -> str:
        """Returns the number of the process that holds the lock."""
        return self.path.read_text().strip()

    def release(self) -> None:
        """Gives the lock back, if this process holds it."""
        if self._file is not None:
            self._file.close()
            self._file = None
