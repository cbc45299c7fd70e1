"""How a benchmark keeps what it measured: as JSON, with the machine and the settings that the figures are of."""

import os
import platform
from importlib import metadata
from pathlib import Path

from tfctr.processor import this_processor
from tfctr.storage import write_json


def add_option(parser):
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there too")


def keep(figures, arguments):
    """Write `{"machine", "settings", "figures"}` to the file that `--json` names, if it does."""
    if arguments.json:
        settings = {name: value for name, value in vars(arguments).items() if name != "json" and not isinstance(value, Path)}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, {"machine": machine(), "settings": settings, "figures": figures})


def machine():
    """What the figures depend on beside the code."""
    distributions = metadata.packages_distributions()  # TensorFlow's may be tensorflow_cpu
    processor = this_processor()
    return {
        "processor": processor.name,
        "instruction_sets": processor.sets,
        "processors": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{package: metadata.version(distributions[package][0]) for package in ("tensorflow", "keras", "numpy")},
    }
