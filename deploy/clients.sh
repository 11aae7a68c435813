#!/bin/sh
# Installs the client libraries for the examples in README.md and docs/clients.md
# that Debian has, and says which are missing.
set -eu
cd "$(dirname "$0")/.."
deploy/need.sh curl=curl python3=python3 php=php-cli,php ruby=ruby
if command -v apt-get >/dev/null; then
	deploy/need.sh /usr/share/php/Pheanstalk/autoload.php=php-pda-pheanstalk /usr/lib/ruby/vendor_ruby/beaneater.rb=ruby-beaneater
fi
for module in greenstalk nats; do
	python3 -c "import $module" 2>/dev/null || echo "Python has no $module here: its example in docs/clients.md is not run"
done
php -r 'require "Pheanstalk/autoload.php"; exit(class_exists("Pheanstalk\\PheanstalkPublisher") ? 0 : 1);' 2>/dev/null ||
	echo "pheanstalk 8 is not here: README.md's example is run with Debian's 4 behind cmd/propeller/testdata/pheanstalk8.php"
