"""The part of httpbin that pods ask: request inspection, statuses, uuid, base64, bytes, redirects, delays.

Paths and JSON keys are httpbin's own, so that a client cannot tell until it asks for more.
"""

import base64
import json
import os
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BODY_LIMIT = 1 << 20


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "gunicorn/19.9.0"

    def respond(self, status, body=b"", content_type="application/json", extra=()):
        if isinstance(body, dict):
            body = (json.dumps(body, indent=2, sort_keys=True) + "\n").encode()
        self.send_response(status)
        for name, value in extra:
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def request_facts(self):
        query = {k: v[0] if len(v) == 1 else v for k, v in parse_qs(urlsplit(self.path).query).items()}
        return {
            "args": query,
            "headers": dict(self.headers.items()),
            "origin": self.client_address[0],
            "url": "http://" + self.headers.get("Host", "") + self.path,
        }

    def body(self):
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(min(max(length, 0), BODY_LIMIT))

    def route(self):
        parts = [unquote(p) for p in urlsplit(self.path).path.split("/")[1:]]
        match self.command, *parts:
            case "GET" | "HEAD", "":
                page = b"<!DOCTYPE html>\n<title>httpbin.org</title>\n<h1>httpbin.org</h1>\n"
                self.respond(200, page, "text/html; charset=utf-8")
            case "GET" | "HEAD", "get":
                self.respond(200, self.request_facts())
            case "POST" | "PUT" | "PATCH" | "DELETE" as method, path if path == method.lower():
                data = self.body().decode(errors="replace")
                self.respond(200, {**self.request_facts(), "data": data})
            case _, "anything", *_:
                data = self.body().decode(errors="replace")
                self.respond(200, {**self.request_facts(), "data": data, "method": self.command})
            case "GET", "ip":
                self.respond(200, {"origin": self.client_address[0]})
            case "GET", "headers":
                self.respond(200, {"headers": dict(self.headers.items())})
            case "GET", "user-agent":
                self.respond(200, {"user-agent": self.headers.get("User-Agent")})
            case "GET", "uuid":
                self.respond(200, {"uuid": str(uuid.uuid4())})
            case "GET", "base64", text:
                self.respond(200, base64.urlsafe_b64decode(text), "text/html; charset=utf-8")
            case "GET", "bytes", count:
                self.respond(200, os.urandom(min(int(count), 100 * 1024)), "application/octet-stream")
            case "GET", "delay", seconds:
                time.sleep(min(float(seconds), 10))
                self.respond(200, self.request_facts())
            case "GET", "redirect", count:
                left = int(count)
                target = f"/redirect/{left - 1}" if left > 1 else "/get"
                self.respond(302, extra=[("Location", target)])
            case _, "status", code:
                self.body()
                self.respond(int(code))
            case _:
                self.respond(404, b"<h1>Not Found</h1>\n", "text/html")

    def handle_one(self):
        try:
            self.route()
        except ValueError as error:
            self.respond(400, {"error": str(error)})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one


if __name__ == "__main__":
    server = ThreadingHTTPServer(("0.0.0.0", 80), Handler)
    print(f"Listening at: http://0.0.0.0:80 ({os.getpid()})", file=sys.stderr, flush=True)
    server.serve_forever()
