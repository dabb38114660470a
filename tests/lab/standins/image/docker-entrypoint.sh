#!/bin/bash
# Stand-in for the entrypoint of docker-library's postgres: the same variables, words and order of events.
# Left out: /docker-entrypoint-initdb.d.
set -Eeo pipefail

# file_env NAME [DEFAULT]: NAME, or what the file named by NAME_FILE holds.
file_env() {
	local name=$1 file="${1}_FILE" value=${2:-}
	if [ "${!name:-}" ] && [ "${!file:-}" ]; then
		echo >&2 "error: both $name and $file are set (but are exclusive)"
		exit 1
	fi
	[ "${!name:-}" ] && value=${!name}
	[ "${!file:-}" ] && value=$(< "${!file}")
	export "$name"="$value"
	unset "$file"
}

refuse_without_password() {
	cat >&2 <<-'EOE'
		Error: Database is uninitialized and superuser password is not specified.
		       You must specify POSTGRES_PASSWORD to a non-empty value for the
		       superuser. For example, "-e POSTGRES_PASSWORD=password" on "docker run".

		       You may also use "POSTGRES_HOST_AUTH_METHOD=trust" to allow all
		       connections without a password. This is *not* recommended.

		       See PostgreSQL documentation about "trust":
		       https://www.postgresql.org/docs/current/auth-trust.html
	EOE
	exit 1
}

init() {
	if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
		refuse_without_password
	fi
	ls /docker-entrypoint-initdb.d/ > /dev/null 2>&1 && echo >&2 "[stand-in] /docker-entrypoint-initdb.d is not read"
	# Debian's programs were made to put the socket there; these were made for /tmp.
	eval 'initdb --set=unix_socket_directories=/var/run/postgresql --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"${POSTGRES_INITDB_ARGS:-}"
	local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption -D "$PGDATA")}
	printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
	# a server with the container's own words and no address: who may connect to it is what they say
	shift
	set -- "$@" -c listen_addresses='' -p "${PGPORT:-5432}"
	PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@")" -w start
	if [ "$POSTGRES_DB" != postgres ]; then
		# the real one's clients look for the socket there by themselves
		PGHOST=/var/run/postgresql PGPORT=${PGPORT:-5432} psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password \
			--no-psqlrc --dbname postgres --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db" ;'
	fi
	pg_ctl -D "$PGDATA" -m fast -w stop
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

main() {
	[ "${1:0:1}" = - ] && set -- postgres "$@"
	if [ "$1" = postgres ] && ! printf '%s\n' "$@" | grep -qxE -- '--help|-\?|--describe-config|-V|--version'; then
		if [ "$(id -u)" = 0 ]; then
			mkdir -p "$PGDATA" /var/run/postgresql
			chmod 00700 "$PGDATA" || :
			chmod 03775 /var/run/postgresql || :
			find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
			find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
			exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
		fi
		file_env POSTGRES_PASSWORD
		file_env POSTGRES_USER postgres
		file_env POSTGRES_DB "$POSTGRES_USER"
		: "${POSTGRES_HOST_AUTH_METHOD:=}"
		if [ -s "$PGDATA/PG_VERSION" ]; then
			printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
		else
			init "$@"
		fi
		unset POSTGRES_PASSWORD
	fi
	exec "$@"
}

main "$@"
