"""Serves the .war files of a directory on port 8080, as Tomcat does: unpacked, each under its own name."""

import sys
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def deploy(webapps):
    for war in sorted(webapps.glob("*.war")):
        target = webapps / war.stem
        print(f"INFO: Deploying web application archive {war.resolve()}", file=sys.stderr, flush=True)
        with zipfile.ZipFile(war) as archive:
            archive.extractall(target)


class Handler(SimpleHTTPRequestHandler):
    server_version = "Apache-Coyote/1.1"
    webapps = None

    def __init__(self, *args):
        super().__init__(*args, directory=str(self.webapps))

    def do_GET(self):
        # What a servlet container never shows.
        if "web-inf" in self.path.lower() or "meta-inf" in self.path.lower():
            self.send_error(404)
        else:
            super().do_GET()


if __name__ == "__main__":
    Handler.webapps = Path(sys.argv[1]).resolve()
    deploy(Handler.webapps)
    server = ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
    print("INFO: Server startup", file=sys.stderr, flush=True)
    server.serve_forever()
