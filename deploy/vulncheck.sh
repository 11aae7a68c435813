#!/bin/sh
# Runs govulncheck; where its database cannot be reached it says so and passes.
set -eu

out=$(mktemp)
trap 'rm -f "$out"' EXIT
if go run "$GOVULNCHECK" ./... >"$out" 2>&1; then
	cat "$out"
elif grep -q 'fetching vulnerabilities' "$out"; then
	echo "govulncheck: NOT CHECKED: its database cannot be reached from here"
else
	cat "$out"
	exit 1
fi
