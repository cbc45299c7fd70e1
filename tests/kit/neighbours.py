"""Run a command beside processes that keep all cores busy, and end with its exit code.

python tests/kit/neighbours.py 8 COMMAND ...
"""

import subprocess
import sys


def main(number, *command):
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(int(number))]
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        for neighbour in neighbours:
            neighbour.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
