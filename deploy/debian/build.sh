#!/bin/bash
# Builds the Debian package. Usage: build.sh PROGRAM OUTPUT [REVISION [OPTION...]]
# PROGRAM is the built command, OUTPUT the folder for the package, and each OPTION one of `cargo deb`. Needs cargo-deb and
# dpkg-dev.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$(realpath "$1") output=$(realpath -m "$2") revision=${3:-1}

# The program writes its own pages and completions, so they cannot be of another version.
made=target/debian
rm -rf "$made"
mkdir -p "$made/completions" "$made/units" "$output"
"$program" manual "$made/man"
for shell in bash fish zsh; do
  "$program" completions "$shell" >"$made/completions/$shell"
done
# cargo-deb installs and enables each unit of this folder.
cp deploy/systemd/millpond.service "$made/units/"
install -m 0755 "$program" "$made/millpond"

cargo deb --package millpond-cli --no-build --no-strip --deb-revision "$revision" --output "$output" --locked "${@:4}"
