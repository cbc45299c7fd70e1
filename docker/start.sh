#!/bin/sh
# Start the server, once the models are those that were published, with as many threads as this container has CPUs; THREADS
# overrides it. TensorFlow itself counts the CPUs of the whole machine, and a container with more threads than CPUs is throttled
# in the middle of requests.
set -eu

# The versions that the configuration file "$1" lets the server load: of each base path the highest, and those that it names.
versions() {
    named=$(grep -Eow 'versions *: *(\[[0-9, ]*\]|[0-9]+)' "$1" | grep -Eo '[0-9]+' || true)
    grep -Eo "base_path: *[\"'][^\"']+" "$1" | sed "s/.*[\"']//" | while read -r base; do
        highest=$(ls "$base" | grep -Ex '[1-9][0-9]{0,17}' | sort -n | tail -n 1)
        printf '%s\n' "$highest" "$named" | sort -nu | while read -r number; do
            if [ -n "$number" ] && [ -d "$base/$number" ]; then echo "$base/$number"; fi
        done
    done
}

verify() { # a version's folder: every file against its SHA-256
    if [ ! -f "$1/assets.extra/SHA256SUMS" ]; then
        echo "$1: nothing says what its files should be: tfctr did not publish it" >&2
    elif ! (cd "$1" && sha256sum --check --strict --quiet assets.extra/SHA256SUMS) >&2; then
        echo "$1 is not what was published, and is not served: remove it, and roll back or publish again" >&2
        exit 6
    fi
}

for argument; do
    case $argument in
    --model_config_file=*) versions "${argument#*=}" | while read -r version; do verify "$version"; done ;;
    esac
done

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
