#!/bin/sh
# Installs the npm packages that tests use in .tools/npm/.
set -eu
cd "$(dirname "$0")/.."
packages='standardwebhooks@1.1.1 jackd@2.2.2 @nats-io/jetstream@3.4.0 @nats-io/transport-node@3.4.0'
[ "$(cat .tools/npm/packages 2>/dev/null)" != "$packages" ] || exit 0
deploy/need.sh node=nodejs,node npm=npm,node
echo "getting $packages with npm"
mkdir -p .tools/npm
# shellcheck disable=SC2086 # several names
npm install --prefix .tools/npm --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error $packages
echo "$packages" >.tools/npm/packages
