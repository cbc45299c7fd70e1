"""What a power cut leaves of a folder: of each file what was last synced of it, of each folder the names last synced.

POSIX promises no more. Names may also come to the disk before anybody syncs them, and contents after them: so a rename alone
may lose both the old file and the new one.
"""

import contextlib
import os
import stat
from pathlib import Path

TORN = "torn"


class Disk:
    """Watches what this process syncs and renames below the folder `root`, which is on the disk as it is at first.

    Args:
        root: the folder.
        look: called with what a cut right before and right after each of those may leave: `{path below root: bytes}`, with
            `TORN` for contents that were not synced; for names that were synced, for those there are now, and for a mixture.
    """

    def __init__(self, root, look=lambda found: None):
        self.root, self.look, self.closing = Path(root), look, contextlib.ExitStack()
        self.held = {}  # by inode: an open file, so that no other one gets the inode
        self.contents, self.names = {}, {}  # by inode: the bytes of a file, the {name: (inode, is folder)} of a folder
        for path in (self.root, *self.root.rglob("*")):
            self._sync(path)

    @contextlib.contextmanager
    def watched(self, monkeypatch):
        """Watch until the block ends."""
        with self.closing, monkeypatch.context() as patch:
            for name in ("fsync", "rename", "replace"):
                patch.setattr(os, name, self._observed(getattr(os, name)))
            yield self
            self._look()

    def found(self, depth=99):
        """What a cut now would leave, where only the names in folders at least so deep came to the disk unsynced."""
        return dict(self._found(_entry(self.root)[0], self.root, "", depth))

    def _observed(self, function):
        def observed(target, *arguments, **options):
            self._look()
            answer = function(target, *arguments, **options)
            if isinstance(target, int):
                self._sync(Path(os.readlink(f"/proc/self/fd/{target}")))
            self._look()
            return answer

        return observed

    def _look(self):
        for depth in (0, 1, 2, 99):
            self.look(self.found(depth))

    def _sync(self, path):
        inode, is_folder = _entry(path)
        if inode not in self.held:
            self.held[inode] = os.open(path, os.O_RDONLY)
            self.closing.callback(os.close, self.held[inode])
        if is_folder:
            self.names[inode] = _entries(path)
        else:
            self.contents[inode] = path.read_bytes()

    def _found(self, inode, path, prefix, depth):
        if depth > 0:
            there = self.names.get(inode, {})
        else:
            there = _entries(f"/proc/self/fd/{self.held[inode]}" if inode in self.held else path)
        for name, (inner, is_folder) in there.items():
            if is_folder:
                yield from self._found(inner, path / name, f"{prefix}{name}/", depth - 1)
            else:
                yield f"{prefix}{name}", self.contents.get(inner, TORN)


def _entries(folder):
    with contextlib.suppress(FileNotFoundError):
        return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder)}
    return {}


def _entry(path):
    found = os.lstat(path)
    return found.st_ino, stat.S_ISDIR(found.st_mode)
