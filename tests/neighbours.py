"""Run a command beside processes that keep all cores busy, and end with its exit code.

python tests/neighbours.py 8 COMMAND ...
"""

import subprocess
import sys

number, *command = sys.argv[1:]
neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(int(number))]
try:
    code = subprocess.run(command, check=False).returncode
finally:
    for neighbour in neighbours:
        neighbour.kill()
sys.exit(code)
