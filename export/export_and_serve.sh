#!/bin/sh
# Export a run as the next version, check it, and serve it on this machine:
#
#     export/export_and_serve.sh runs/frappe/tf4ctr serving/frappe [--port 8500]
set -eu
run=$1 folder=$2
shift 2
tfctr export "$run" "$folder"
exec tfctr serve "$folder" "$@"
