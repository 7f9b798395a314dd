#!/bin/sh
# Runs the server in the foreground, as the image of the article does.
cd "$(dirname "$0")/.." || exit 1
exec /usr/bin/python3.11 bin/serve.py webapps
