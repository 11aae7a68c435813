#!/bin/sh
# Gets promtool, which checks deploy/alerts.yaml, to .tools/ unless it is on the
# PATH. Debian has it in the package of the Prometheus server only, which an
# installation would start: it is taken out of the package instead.
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
