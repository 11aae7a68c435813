#!/bin/sh
# Installs promtool, which checks deploy/alerts.yaml, in .tools/ unless it is on the
# PATH. Debian has it only in the package of the Prometheus server, which an
# installation would start, so this takes it out of the package.
set -eu
cd "$(dirname "$0")/.."
if command -v promtool >/dev/null || [ -x .tools/promtool ]; then
	exit 0
fi
if command -v brew >/dev/null; then
	exec brew install prometheus # starts nothing
fi
if ! command -v apt-get >/dev/null; then
	echo "missing: promtool, and there is neither apt-get nor brew: get it from prometheus.io/download and run this again" >&2
	exit 1
fi
echo "getting promtool out of Debian's package prometheus"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
download() (cd "$dir" && apt-get download -qq prometheus)
if ! download 2>/dev/null; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq
	download
fi
mkdir -p .tools
dpkg-deb --fsys-tarfile "$dir"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$dir/promtool"
chmod +x "$dir/promtool"
mv "$dir/promtool" .tools/promtool
