#!/bin/sh
# Makes the golden archives of one PostgreSQL major: a throwaway cluster with sample.sql
# in it, dumped in every way that changes the bytes.
#
#   make.sh BINDIR OUTDIR      BINDIR holds initdb, pg_ctl, psql, pg_dump and pg_restore
#
# To be run as an unprivileged user, for each major that shall be covered. Majors that the
# system does not offer come from internal/testenv/tools.sh:
#
#   internal/testenv/tools.sh servers
#   dumper/pgarchive/testdata/make.sh "$(readlink -f .tools/postgres/17)" "$PWD/out"
set -eu
bin=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
major=$("$bin/pg_dump" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
mkdir -p "$out"
cd "$dir"
export PGHOST="$dir" PGUSER=golden PGDATABASE=golden TZ=UTC LC_ALL=C PGTZ=UTC

"$bin/initdb" -D data -U golden --locale=C -E UTF8 -A trust >initdb.log
"$bin/pg_ctl" -D data -w -l server.log -o "-c listen_addresses= -c unix_socket_directories=$dir -c fsync=off" start >/dev/null
trap '"$bin/pg_ctl" -D data -m immediate stop >/dev/null; cd /; rm -rf "$dir"' EXIT
"$bin/psql" -qX -d postgres -c 'CREATE DATABASE golden'
"$bin/psql" -qX -v ON_ERROR_STOP=1 -f "$here/sample.sql" >/dev/null
"$bin/psql" -qX -c ANALYZE

# Through a pipe, offsets stay unset: what pgstow reads. The .list is what this major's
# own pg_restore says of it.
piped() {
    name=$major-$1
    shift
    "$bin/pg_dump" -Fc "$@" | cat >"$out/$name.dump"
    "$bin/pg_restore" -l "$out/$name.dump" >"$out/$name.list"
}

if [ "$major" -lt 16 ]; then
    piped gzip
    piped none -Z0
else
    piped gzip --compress=gzip:9
    piped none --compress=none
    piped lz4 --compress=lz4
    piped zstd --compress=zstd:3
    piped zstd-long --compress=zstd:long
fi
if [ "$major" = 15 ]; then
    piped inserts --inserts
    piped schema --schema-only
    piped data --data-only
    piped predata --section=pre-data
fi
if [ "$major" -ge 18 ]; then
    piped statistics --statistics
fi

# Into a file, pg_dump sets the offsets when it is done. Same contents as NAME-gzip.
if [ "$major" -lt 16 ]; then set --; else set -- --compress=gzip:9; fi
"$bin/pg_dump" -Fc "$@" -f "$out/$major-gzip.file"
