"""A lock that keeps other processes out of a folder."""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO


class FolderLock:
    """A lock that one process at a time can hold on a folder; its file, `.lock`, contains that process's number.

    The operating system releases the lock when the process ends, also by `kill -9`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self.note: str | None = None
        """A warning to the user, if the file system has no locks, as Lustre and NFS may be set up."""
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Acquires the lock; raises BlockingIOError if another process holds it, OSError if it cannot be written."""
        self._file = open(self.path, "a+")  # noqa: SIM115  (the lock is held as long as the file is open)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                self.release()
                raise
            self.note = f"{self.path.parent} cannot be locked ({error.strerror}): use it in one process at a time"
        self._file.truncate(0)
        print(os.getpid(), file=self._file, flush=True)

    def holder(self) -> str:
        """Returns the number of the process that holds the lock."""
        return self.path.read_text().strip()

    def release(self) -> None:
        """Releases the lock, if this process holds it. Its file stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
