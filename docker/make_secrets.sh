#!/bin/sh
# Make what Envoy and Grafana need: docker/make_secrets.sh FOLDER HOST
# HOST is the name, or the IP address, that callers connect to. Nothing that is there already is replaced.
#
# FOLDER/ca.crt      for callers: PredictionClient(root_certificates=...)
# FOLDER/ca.key      signs certificates; keep it away from the servers
# FOLDER/token.key   signs tokens, see make_token.sh; keep it away from the servers
# FOLDER/envoy/      what Envoy reads: tls.crt, tls.key, client_ca.crt, jwks.json
# FOLDER/grafana_password
set -eu
if [ $# -ne 2 ]; then
    echo "usage: $0 FOLDER HOST" >&2
    exit 2
fi
folder=${1%/} host=$2
if [ -e "$folder" ]; then
    echo "$folder is there already: remove it, or give another folder" >&2
    exit 1
fi
case $host in
'' | *[!A-Za-z0-9.-]*)
    echo "HOST is '$host': give a name such as serving.example.com, or an IPv4 address" >&2
    exit 2
    ;;
*[!0-9.]*) name=DNS:$host ;;
*) name=IP:$host ;;
esac

# A folder appears whole or not at all. It lets only its owner in, so that the files may be read by the containers' users.
new=$folder.new.$$
trap 'rm -rf "$new"' EXIT
umask 022
mkdir -p "$new/envoy"
chmod 700 "$new"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

key "$new/ca.key"
openssl req -x509 -new -key "$new/ca.key" -subj "/CN=tfctr authority" -days 3650 -out "$new/ca.crt" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"
cp "$new/ca.crt" "$new/envoy/client_ca.crt"

key "$new/envoy/tls.key"
openssl req -new -key "$new/envoy/tls.key" -subj "/CN=$host" -out "$new/tls.csr"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$name" >"$new/tls.ext"
openssl x509 -req -in "$new/tls.csr" -CA "$new/ca.crt" -CAkey "$new/ca.key" -CAcreateserial -days 365 \
    -extfile "$new/tls.ext" -out "$new/envoy/tls.crt" 2>"$new/log" || { cat "$new/log" >&2; exit 1; }
rm -f "$new/tls.csr" "$new/tls.ext" "$new/ca.srl" "$new/log"
chmod 644 "$new/envoy/tls.key"

openssl genrsa -out "$new/token.key" 2048 2>/dev/null
# The modulus as bytes, in base64 for URLs: openssl prints it in hexadecimal, and printf knows octal.
n=$(openssl rsa -in "$new/token.key" -noout -modulus | cut -d= -f2 | fold -w2 |
    while read -r byte; do printf "\\$(printf %03o "0x$byte")"; done | openssl base64 -A | tr '+/' '-_' | tr -d =)
printf '{"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "n": "%s", "e": "AQAB"}]}\n' "$n" >"$new/envoy/jwks.json"

openssl rand -base64 24 >"$new/grafana_password"
chmod 600 "$new/ca.key" "$new/token.key"
mv "$new" "$folder"
