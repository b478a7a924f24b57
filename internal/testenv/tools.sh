#!/usr/bin/env bash
# Installs the programs that tests, lint and demo need.
#
#   tools.sh demo    the demo's: PostgreSQL and versitygw
#   tools.sh test    everything the tests need, the linter included
#
# Go programs are built once per version into ${XDG_CACHE_HOME:-~/.cache}/pgstow-tools
# and linked into .tools/bin, so that a clean clone builds no server again.
# MinIO and mc are AGPL: separate processes in tests, never imported or shipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/pgstow-tools"
bin="$PWD/.tools/bin"
mkdir -p "$cache" "$bin"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "tools.sh: need root or sudo to run: $*" >&2; exit 1; fi
}

# debian PACKAGE... installs the packages that are missing.
debian() {
  local missing=()
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return
  echo "installing Debian packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# tool NAME PACKAGE VERSION [BUILT-NAME] builds PACKAGE@VERSION unless it is cached.
tool() {
  local name=$1 pkg=$2 version=$3 built=${4:-$1}
  local dir="$cache/$name@$version"
  if [ ! -x "$dir/$name" ]; then
    (
      flock 9 # two clones may install at once
      [ -x "$dir/$name" ] && exit
      echo "building $name $version (once, then cached)"
      tmp=$(mktemp -d "$cache/tmp.XXXXXX")
      trap 'rm -rf "$tmp"' EXIT
      GOBIN="$tmp" GOTMPDIR="$tmp" GOFLAGS=-buildvcs=false CGO_ENABLED=0 go install "$pkg@$version"
      mkdir -p "$dir"
      mv "$tmp/$built" "$dir/$name"
    ) 9>"$cache/$name.lock"
  fi
  ln -sfn "$dir/$name" "$bin/$name"
}

postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && compgen -G '/usr/lib/postgresql/*/bin/pg_dump' >/dev/null && return
  # Installing the package would also create and start a cluster on port 5432.
  local dir=/etc/postgresql-common/createcluster.d
  (
    trap 'as_root rm -f "$dir/pgstow.conf"' EXIT
    as_root mkdir -p "$dir"
    as_root sh -c "echo 'create_main_cluster = false' >$dir/pgstow.conf"
    debian postgresql postgresql-client
  )
}

versitygw() { tool versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0; }

case "${1:-}" in
demo)
  postgres
  versitygw
  ;;
test)
  postgres
  debian pgbouncer awscli rclone age time openssh-client
  versitygw
  tool fake-gcs-server github.com/fsouza/fake-gcs-server v1.56.1
  tool toxiproxy-server github.com/Shopify/toxiproxy/v2/cmd/server v2.5.0 server
  tool mc github.com/minio/mc v0.0.0-20250313080218-cf909e1063a9
  tool minio github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c
  tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0
  ;;
*)
  echo "usage: tools.sh demo|test" >&2
  exit 2
  ;;
esac
