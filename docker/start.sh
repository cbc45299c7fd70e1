#!/bin/sh
# Start the server with as many threads as this container has CPUs; THREADS overrides it. TensorFlow itself counts the CPUs of
# the whole machine, and a container with more threads than CPUs is throttled in the middle of requests.
set -eu

cpus() { # the quota of cgroup v2, rounded up; without one, the CPUs that this process may use
    quota=max
    if [ -r "${CPU_MAX_FILE:=/sys/fs/cgroup/cpu.max}" ]; then read -r quota period <"$CPU_MAX_FILE"; fi
    if [ "$quota" = max ]; then nproc; else echo $(((quota + period - 1) / period)); fi
}

threads=${THREADS:-$(cpus)}
case $threads in
'' | 0* | *[!0-9]*)
    echo "THREADS is '$threads': give a whole number of at least 1" >&2
    exit 2
    ;;
esac
# Four threads for gRPC per CPU is the server's own rule.
exec tensorflow_model_server "--tensorflow_session_parallelism=$threads" "--grpc_max_threads=$((4 * threads))" "$@"
