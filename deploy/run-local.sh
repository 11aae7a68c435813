#!/bin/sh
# Starts beanstalkd with a binlog in .propeller/, unless one listens already,
# and the daemon on propeller.yaml. Ctrl-C stops both, the daemon first.
set -eu

dir=.propeller
mkdir -p "$dir/binlog"
go build -o "$dir/propeller" ./cmd/propeller

# Ctrl-C reaches every process of the terminal. beanstalkd must outlive the
# daemon's drain, and this script both.
(trap '' INT TERM && exec beanstalkd -l 127.0.0.1 -p 11300 -b "$dir/binlog" 2>"$dir/beanstalkd.log") &
queue=$!
trap : INT TERM
sleep 0.3 # it either fails to listen at once or stays
if kill -0 "$queue" 2>/dev/null; then
	echo "beanstalkd listens on 127.0.0.1:11300, its jobs are kept in $dir/binlog"
elif grep -q 'Address already in use' "$dir/beanstalkd.log"; then
	echo "using the server that listens on 127.0.0.1:11300"
	queue=
else
	echo "beanstalkd did not start:" >&2
	cat "$dir/beanstalkd.log" >&2
	exit 1
fi

status=0
"$dir/propeller" run || status=$?
# It has no other way to stop, and its binlog survives this one.
[ -z "$queue" ] || kill -9 "$queue" 2>/dev/null || true # it may have gone before
exit "$status"
