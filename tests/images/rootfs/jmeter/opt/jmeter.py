"""JMeter's non-GUI mode for plans made of thread groups with HTTP samplers: `jmeter -n -t PLAN`.

The image has a web server of its own on port 8080, the one that the plan samples.
"""

import argparse
import http.client
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Target(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<h1>It works!</h1>\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def prop(element, name, default=None):
    for child in element.iter():
        if child.get("name") == name:
            return child.text or default
    if default is None:
        sys.exit(f"An error occurred: the plan has no {name}")
    return default


def groups(plan):
    """Each thread group with its samplers: a hashTree follows the element that it belongs to."""
    for tree in plan.iter("hashTree"):
        children = list(tree)
        for element, below in zip(children, children[1:]):
            if element.tag == "ThreadGroup" and below.tag == "hashTree":
                yield element, list(below.iter("HTTPSamplerProxy"))


def sample(sampler):
    began = time.monotonic()
    try:
        port = int(prop(sampler, "HTTPSampler.port", "80"))
        connection = http.client.HTTPConnection(prop(sampler, "HTTPSampler.domain"), port, timeout=60)
        connection.request(prop(sampler, "HTTPSampler.method", "GET"), prop(sampler, "HTTPSampler.path", "/"))
        response = connection.getresponse()
        response.read()
        good = response.status < 400
    except OSError as error:
        print(error, file=sys.stderr)
        good = False
    return (time.monotonic() - began) * 1000, good


def run(plan):
    results = []
    threads = []
    for group, samplers in groups(plan):
        loops = int(prop(group, "LoopController.loops", "1"))

        def user():
            for _ in range(loops):
                results.extend(sample(s) for s in samplers)

        threads += [threading.Thread(target=user) for _ in range(int(prop(group, "ThreadGroup.num_threads", "1")))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, time.monotonic() - began


def main():
    options = argparse.ArgumentParser(prog="jmeter")
    options.add_argument("-n", "--nongui", action="store_true", required=True)
    options.add_argument("-t", "--testfile", required=True)
    arguments = options.parse_args()
    try:
        plan = ElementTree.parse(arguments.testfile)
    except (OSError, ElementTree.ParseError) as error:
        sys.exit(f"An error occurred: Error in NonGUIDriver {error}")

    threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", 8080), Target).serve_forever, daemon=True).start()
    print("Creating summariser <summary>")
    print(f"Created the tree successfully using {arguments.testfile}")
    print("Starting standalone test")
    results, seconds = run(plan)
    if not results:
        sys.exit("An error occurred: the plan holds no sampler")
    times = [elapsed for elapsed, _ in results]
    errors = sum(not good for _, good in results)
    print(
        f"summary = {len(results):6} in {seconds:09.1f}s = {len(results) / seconds:6.1f}/s"
        f" Avg: {sum(times) / len(times):5.0f} Min: {min(times):5.0f} Max: {max(times):5.0f}"
        f" Err: {errors:5} ({100 * errors / len(results):.2f}%)"
    )
    print("... end of run", flush=True)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
