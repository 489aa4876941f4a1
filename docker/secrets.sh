#!/bin/sh
# Makes the secrets of docker-compose.yaml, once: random, in docker/secrets/, readable by their owner only.
# A secret that is there stays. The containers run under this account (.env), so that they can read them.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets

word() { head -c "${1:-32}" /dev/urandom | base64 | tr -d '\n=' | tr '+/' '-_'; }
keep() { [ -s "secrets/$1" ] || { printf '%s' "$2" > "secrets/$1.new"; mv "secrets/$1.new" "secrets/$1"; }; }

keep postgres_password "$(word)"
keep airflow_database_url "postgresql+psycopg://airflow:$(word)@postgres:5432/airflow"
keep airflow_fernet_key "$(word)="
keep airflow_jwt_secret "$(word 48)"
keep airflow_secret_key "$(word 48)"
keep airflow_passwords "{\"admin\": \"$(word 18)\"}"
keep mssql_sa_password "Aa1-$(word 18)"

uid=$(id -u)
gid=$(id -g)
if [ "$uid" -eq 0 ]; then
  # Nothing in the containers runs as root; an account of theirs reads the secrets.
  uid=${SUDO_UID:-1000}
  gid=${SUDO_GID:-1000}
  chown -R "$uid:$gid" secrets
fi
if ! grep -qs '^NAVIGLIO_UID=' ../.env; then
  printf 'NAVIGLIO_UID=%s\nNAVIGLIO_GID=%s\n' "$uid" "$gid" >> ../.env
fi
echo "Secrets are in docker/secrets/. Airflow's password of admin: docker/secrets/airflow_passwords"
