#!/bin/sh
# Installs nghttpd and h2load with the system's package manager if they are
# missing: the neutral server and the yardstick of the measurements.
set -eu

if command -v nghttpd >/dev/null && command -v h2load >/dev/null; then
	exit 0
fi

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

if command -v apt-get >/dev/null; then
	echo "installing nghttpd and h2load with apt-get"
	$sudo apt-get update -qq
	# Only the programs are wanted: no server shall start by itself.
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $sudo apt-get install -y -qq --no-install-recommends nghttp2-server nghttp2-client
elif command -v brew >/dev/null; then
	echo "installing nghttp2 with brew"
	brew install nghttp2
else
	echo "nghttpd or h2load is missing and there is neither apt-get nor brew: install nghttp2's programs from your system's packages (https://nghttp2.org) and run this again" >&2
	exit 1
fi

for program in nghttpd h2load; do
	command -v $program >/dev/null || {
		echo "$program was installed but is not on the PATH" >&2
		exit 1
	}
done
