"""Programs that a served model may need: TensorFlow Serving, Docker and its daemon, Java."""

import shutil
import subprocess
from collections.abc import Iterator

from tfctr.doctor.findings import Finding

_GROUP = "programs"
_PATIENCE = 5.0  # seconds for Docker's daemon


def program_findings() -> Iterator[Finding]:
    """Where each of them is. None is needed: `tfctr serve` has a stand-in."""
    server = shutil.which("tensorflow_model_server")
    yield Finding(_GROUP, "tensorflow_model_server", server or "not on PATH: `tfctr serve` is the stand-in")
    docker = shutil.which("docker")
    yield Finding(_GROUP, "docker", docker or "not on PATH")
    if docker:
        yield Finding(_GROUP, "docker daemon", _daemon(docker))
    yield Finding(_GROUP, "java", shutil.which("java") or "not on PATH")


def _daemon(docker: str) -> str:
    """The version of the daemon, or why there is no answer."""
    command = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"did not answer within {_PATIENCE:g} s"
    except OSError as error:
        return f"not reachable: {error.strerror}"
    if asked.returncode:
        return f"not reachable: {' '.join(asked.stderr.split())[:200] or f'exit code {asked.returncode}'}"
    return f"answers, version {asked.stdout.strip()}"
