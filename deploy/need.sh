#!/bin/sh
# Installs missing programs with the system's package manager. Each
# argument is PROGRAM=PACKAGE, or PROGRAM=APT-PACKAGE,BREW-PACKAGE. A path stands for
# a library.
set -eu

is_there() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

apt= brew= missing=
for need; do
	program=${need%%=*} packages=${need#*=}
	is_there "$program" && continue
	missing="$missing $program"
	apt="$apt ${packages%%,*}"
	brew="$brew ${packages##*,}"
done
[ -n "$missing" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

# shellcheck disable=SC2086 # several names each
if command -v apt-get >/dev/null; then
	echo "installing$apt with apt-get"
	$sudo apt-get update -qq
	# Only the programs are wanted. On Debian policy-rc.d keeps their servers
	# from starting.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap '$sudo rm -f "$policy"' EXIT
		trap 'exit 1' HUP INT TERM
		printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
		$sudo chmod 755 "$policy"
	fi
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt
elif command -v brew >/dev/null; then
	echo "installing$brew with brew"
	brew install $brew
else
	echo "missing:$missing, and there is neither apt-get nor brew: install them from your system's packages and run this again" >&2
	exit 1
fi

for program in $missing; do
	is_there "$program" || {
		echo "$program was installed but is not there, or not on the PATH" >&2
		exit 1
	}
done
