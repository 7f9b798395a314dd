#!/bin/sh
# As curlimages/curl has it: the command, or curl with the given options.
set -e
if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ]; then
    set -- curl "$@"
fi
exec "$@"
