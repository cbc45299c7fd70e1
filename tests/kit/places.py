"""Where the tests find the files of the repository."""

from pathlib import Path

KIT = Path(__file__).parent
TESTS = KIT.parent
ROOT = TESTS.parent
BENCHMARKS, DOCKER, EXAMPLES = (ROOT / name for name in ("benchmarks", "docker", "examples"))
