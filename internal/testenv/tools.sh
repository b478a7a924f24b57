#!/usr/bin/env bash
# Installs the programs that tests, lint and demo need.
#
#   tools.sh demo    the demo's: PostgreSQL and versitygw
#   tools.sh test    everything the tests need, the linter included
#   tools.sh servers PostgreSQL 13, 15, 17 and 18, for make test-versions
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

# german is a locale that writes amounts of money otherwise than C.
german() {
  debian locales
  locale -a | grep -qix 'de_DE\.utf-\?8' || as_root localedef -i de_DE -f UTF-8 de_DE.UTF-8
}

versitygw() { tool versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0; }

# find_mirror sets mirror to the one that the machine installs from, with its proxy.
find_mirror() {
  local proxy=
  mirror=${DEBIAN_MIRROR:-$(debian_sources)}
  if [ -z "$mirror" ]; then
    as_root apt-get -qq update
    mirror=$(debian_sources)
  fi
  [ -n "$mirror" ] || { echo "tools.sh: apt knows no Debian mirror; name one in DEBIAN_MIRROR" >&2; return 1; }
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  [ -z "$proxy" ] || export http_proxy="$proxy"
}

debian_sources() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sort -u | sed -n 1p
}

# server MAJOR SUITE makes .tools/postgres/MAJOR the bin directory of that
# major: the machine's own, or one unpacked from Debian's SUITE into the cache.
server() {
  local major=$1 suite=$2 bin=/usr/lib/postgresql/$1/bin
  if [ ! -x "$bin/initdb" ] || [ ! -x "$bin/pg_dump" ]; then
    local dir="$cache/postgresql-$major@$suite"
    bin="$dir$bin"
    (
      flock 9
      "$bin/initdb" --version >/dev/null 2>&1 && exit
      echo "unpacking PostgreSQL $major from Debian $suite (once, then cached)"
      debian debootstrap debian-archive-keyring
      find_mirror
      tmp=$(mktemp -d "$cache/tmp.XXXXXX")
      trap 'rm -rf "$tmp"' EXIT
      debootstrap --download-only --force-check-gpg --variant=minbase \
        --include="postgresql-$major" "$suite" "$tmp/suite" "$mirror" >"$tmp/log" 2>&1 || {
        tail -5 "$tmp/log" >&2
        echo "tools.sh: cannot get postgresql-$major of $suite from $mirror; DEBIAN_MIRROR names another" >&2
        exit 1
      }
      unpack "$major" "$tmp"
      "$tmp/tree/usr/lib/postgresql/$major/bin/initdb" --version
      rm -rf "$dir"
      mv "$tmp/tree" "$dir"
    ) 9>"$cache/postgresql-$major.lock"
  fi
  mkdir -p .tools/postgres
  ln -sfn "$bin" ".tools/postgres/$major"
}

# unpack MAJOR TMP makes TMP/tree of the packages in TMP/suite: PostgreSQL's
# files where it looks for them, its shared libraries in lib, and in place of
# each program a script that starts it with these. Nothing is installed or
# configured, so it needs no root, and works wherever the tree is moved.
unpack() {
  local major=$1 tmp=$2 tree="$2/tree" deb libc= loader program
  for deb in "$tmp"/suite/var/cache/apt/archives/{lib,postgresql-,zlib1g}*.deb; do
    case "${deb##*/}" in
    libllvm* | libz3* | libperl*) ;; # JIT and PL/Perl: large, and not used
    libc6_*) libc=$deb ;;
    *) dpkg-deb -x "$deb" "$tmp/root" ;;
    esac
  done
  # A C library runs programs made for an older one, not for a newer one.
  if dpkg --compare-versions "$(dpkg-deb -f "$libc" Version)" gt "$(dpkg-query -W -f '${Version}' libc6)"; then
    dpkg-deb -x "$libc" "$tmp/root"
  fi
  mkdir -p "$tree"/{lib,libexec,usr/lib,usr/share} "$tmp"/root/{lib,usr/lib}
  mv "$tmp/root/usr/lib/postgresql" "$tree/usr/lib/"
  mv "$tmp/root/usr/share/postgresql" "$tree/usr/share/"
  rm -rf "$tree/usr/lib/postgresql/$major/lib"/{llvmjit*,bitcode}
  find "$tmp"/root/lib "$tmp"/root/usr/lib -mindepth 2 -maxdepth 2 -name '*.so*' -exec cp -a -t "$tree/lib" {} +
  if loader=$(compgen -G "$tree/lib/ld-linux*.so.*"); then
    loader="\$root${loader#"$tree"}"
  else
    loader=$(compgen -G '/lib*/ld-linux*.so.*')
  fi
  for program in "$tree/usr/lib/postgresql/$major/bin"/*; do
    [ ! -L "$program" ] || { rm "$program"; continue; }
    mv "$program" "$tree/libexec/"
    # Under the script's name it finds its share directory and its sister
    # programs by the usual paths.
    cat >"$program" <<EOF
#!/bin/sh
self=\$(readlink -f "\$0")
root=\${self%/usr/lib/postgresql/$major/bin/*}
exec "$loader" --argv0 "\$self" --library-path "\$root/lib" "\$root/libexec/\${self##*/}" "\$@"
EOF
    chmod 755 "$program"
  done
}

case "${1:-}" in
demo)
  postgres
  versitygw
  ;;
test)
  postgres
  debian pgbouncer awscli rclone age jq time openssh-client chromium
  german
  versitygw
  tool age-1.3 filippo.io/age/cmd/age v1.3.2 age # Debian's is older than post-quantum keys
  tool fake-gcs-server github.com/fsouza/fake-gcs-server v1.56.1
  tool toxiproxy-server github.com/Shopify/toxiproxy/v2/cmd/server v2.5.0 server
  tool mc github.com/minio/mc v0.0.0-20250313080218-cf909e1063a9
  tool minio github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c
  tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0
  ;;
servers)
  server 13 bullseye
  server 15 bookworm
  server 17 trixie
  server 18 sid
  ;;
*)
  echo "usage: tools.sh demo|test|servers" >&2
  exit 2
  ;;
esac
