#!/bin/sh
# Makes the files that docker-compose.yml mounts as secrets; those that are there stay as they are.
#   deploy/secrets.sh          passwords and the key ring
#   deploy/secrets.sh proxy    user `operator` of the proxy, whose password is shown once, and a
#                              certificate that it signs itself, to be replaced by yours
set -eu
umask 077
folder="${SECRETS_FOLDER:-$(dirname "$0")/../secrets}"
mkdir -p "$folder"
cd "$folder"

# Containers read them as users of their own; on this machine nobody else gets past the folder.
keep() {
    cat > "$1.draft"
    chmod 0444 "$1.draft"
    if [ -e "$1" ]; then rm -f "$1.draft"; else mv "$1.draft" "$1"; fi
}

if [ "${1:-}" = proxy ]; then
    if [ ! -e proxy_htpasswd ]; then
        password=$(openssl rand -hex 16)
        printf 'operator:%s\n' "$(printf %s "$password" | openssl passwd -6 -stdin)" | keep proxy_htpasswd
        printf 'user operator, password %s\n' "$password"
    fi
    if [ ! -e proxy_certificate ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
            -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
            -keyout proxy_key.pem -out proxy_certificate.pem 2> /dev/null
        keep proxy_key < proxy_key.pem
        keep proxy_certificate < proxy_certificate.pem
        rm proxy_key.pem proxy_certificate.pem
    fi
    exit
fi

openssl rand -hex 24 | keep postgres_password
printf 'postgresql://hubspot_deals:%s@postgres:5432/hubspot_deals\n' "$(cat postgres_password)" \
    | keep hubspot_deals_database_url
printf 'k1:%s\n' "$(openssl rand -base64 32)" | keep hubspot_deals_encryption_keys
