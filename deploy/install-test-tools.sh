#!/bin/sh
# Installs what make test needs beside Go and beanstalkd: netcat and python3 for
# the clients shown in README.md, nghttpd and node for apnsconn's interoperability.
set -eu

missing=
command -v nc >/dev/null || missing="$missing netcat-openbsd"
command -v python3 >/dev/null || missing="$missing python3-minimal"
command -v nghttpd >/dev/null || missing="$missing nghttp2-server"
command -v node >/dev/null || missing="$missing nodejs"
[ -n "$missing" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if command -v apt-get >/dev/null; then
	echo "installing$missing with apt-get"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # several names
	$sudo apt-get install -y -qq --no-install-recommends $missing
else
	echo "install$missing with your system's package manager and run this again" >&2
	exit 1
fi
