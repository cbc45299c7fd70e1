"""A lock that another process holds: the refusal says which process, and on which host."""

import contextlib
import platform
import signal
import subprocess
import sys

import pytest

from tfctr.errors import StorageError
from tfctr.serving import rollback
from tfctr.storage import locked

HOLD = """
import sys
from tfctr.storage import locked

with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path):
    """A process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def test_the_holder_is_named(tmp_path):
    (tmp_path / "lock").write_text("1234567890 a-host-with-a-long-name")  # left behind by one that was killed
    with held_by_another(tmp_path / "lock") as holder:
        for _ in range(2):  # to be refused takes nothing from the holder's name
            with pytest.raises(StorageError) as refused, locked(tmp_path / "lock", busy="x is in use."):
                pass
            assert refused.value.problem == f"x is in use. It is process {holder.pid} on {platform.node()}."
        holder.communicate("")
    assert (tmp_path / "lock").read_text() == ""


def test_a_holder_that_is_killed_holds_nothing_and_is_forgotten(tmp_path):
    with held_by_another(tmp_path / "lock") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path / "lock", busy="x is in use."):
        assert (tmp_path / "lock").read_text().split()[0] != str(holder.pid)


def test_a_lock_without_a_name_is_refused_all_the_same(tmp_path):
    with held_by_another(tmp_path / "lock"):
        for content in ("", "1234", "\0" * 300):
            (tmp_path / "lock").write_text(content)
            with pytest.raises(StorageError, match=r"x is in use\.\n"), locked(tmp_path / "lock", busy="x is in use."):
                pass


def test_who_publishes_is_told(tmp_path):
    (tmp_path / "ctr" / "1").mkdir(parents=True)
    with held_by_another(tmp_path / "ctr" / ".tfctr-lock") as holder:
        said = rf"another process is publishing to .*ctr\. It is process {holder.pid} on "
        with pytest.raises(StorageError, match=said):
            rollback(tmp_path / "ctr", "why")
