#!/bin/sh
# Starts beanstalkd with a binlog in .propeller/, unless one listens already,
# and the daemon on propeller.yaml. Ctrl-C stops both, the daemon first.
set -eu

dir=.propeller
mkdir -p "$dir/binlog"
go build -o "$dir/propeller" ./cmd/propeller

# It must outlive the daemon's drain, so Ctrl-C shall not reach it.
(trap '' INT && exec beanstalkd -l 127.0.0.1 -p 11300 -b "$dir/binlog" 2>"$dir/beanstalkd.log") &
queue=$!
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

# The shell waits for the daemon, however it is told to stop.
"$dir/propeller" run &
daemon=$!
trap 'kill -TERM $daemon 2>/dev/null || true' INT TERM
status=0
while kill -0 "$daemon" 2>/dev/null; do
	wait "$daemon" && status=0 || status=$?
done
[ -z "$queue" ] || kill "$queue" 2>/dev/null || true
exit "$status"
