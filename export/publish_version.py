"""Copy an exported version to the folder that a server polls, as its next version, whole or not at all.

python export/publish_version.py serving/frappe/3 /models/frappe
"""

import argparse
import shutil

from tfctr.serving.store.folders import add_version, require_base
from tfctr.serving.store.manifest import verify

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="the folder of one version, the one with saved_model.pb")
    parser.add_argument("base", help="the folder of all versions that the server polls")
    arguments = parser.parse_args()
    verify(arguments.version)
    print(
        add_version(require_base(arguments.base), lambda folder: shutil.copytree(arguments.version, folder, dirs_exist_ok=True))
    )
