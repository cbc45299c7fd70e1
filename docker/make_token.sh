#!/bin/sh
# Print a token for one caller: docker/make_token.sh TOKEN_KEY NAME [HOURS]
# Envoy writes NAME into its log. The token cannot be taken back before it expires, HOURS from now (24): keep them few, and let
# `PredictionClient(token=read_token)` read a new one from a file.
set -eu
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $0 TOKEN_KEY NAME [HOURS]" >&2
    exit 2
fi
key=$1 name=$2 hours=${3:-24}
case $name in '' | *[!A-Za-z0-9._@-]*)
    echo "NAME is '$name': use letters, digits, . _ @ and -" >&2
    exit 2
    ;;
esac
case $hours in '' | 0* | *[!0-9]*)
    echo "HOURS is '$hours': give a whole number of at least 1" >&2
    exit 2
    ;;
esac

openssl rsa -in "$key" -noout # stops here if it is no key for RS256, such as ca.key: a pipe does not

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d =; }

now=$(date +%s)
claims=$(printf '{"iss":"tfctr","aud":"tfctr-serving","sub":"%s","iat":%d,"exp":%d}' "$name" "$now" $((now + hours * 3600)))
signed=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url).$(printf %s "$claims" | base64url)
signature=$(printf %s "$signed" | openssl dgst -sha256 -sign "$key" -binary | base64url)
printf '%s.%s\n' "$signed" "$signature"
