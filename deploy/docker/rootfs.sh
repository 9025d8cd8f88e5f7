#!/bin/sh
# Makes the root folder of the image: the program, its libraries, a user and the folders that it writes to.
# Usage: rootfs.sh PROGRAM FOLDER
set -eu
program=$1 root=$2
mkdir -p "$root/usr/bin" "$root/etc" "$root/media" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$program" "$root/usr/bin/millpond"
# The loader and the libraries keep their paths.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
echo 'millpond:x:65532:65532::/:/' >"$root/etc/passwd"
echo 'millpond:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# Root certificates, for an origin or a collector behind `https`.
mkdir -p "$root/etc/ssl/certs"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
