#!/bin/sh
# Installs beanstalkd with the system's package manager if it is missing.
set -eu

command -v beanstalkd >/dev/null && exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

if command -v apt-get >/dev/null; then
	echo "installing beanstalkd with apt-get"
	$sudo apt-get update -qq
	# Only the program is wanted: no server shall start by itself.
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $sudo apt-get install -y -qq --no-install-recommends beanstalkd
elif command -v brew >/dev/null; then
	echo "installing beanstalkd with brew"
	brew install beanstalkd
else
	echo "beanstalkd is missing and there is neither apt-get nor brew: install it from your system's packages (https://beanstalkd.github.io) and run this again" >&2
	exit 1
fi

command -v beanstalkd >/dev/null || {
	echo "beanstalkd was installed but is not on the PATH" >&2
	exit 1
}
