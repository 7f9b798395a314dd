"""One end of the traffic tests, in a pod: `serve`, or `call HOST`, which uses every service of a peer once.

TCP 7000 takes bytes to their end and answers their number and SHA-256; 7001 reads a number, sends that many bytes and
then their SHA-256 in hexadecimal; 7002 says "x" and closes. UDP 7003 sends back what comes. All of both families.
"""

import hashlib
import os
import socket
import sys
import threading

SINK, SOURCE, TICK, ECHO = 7000, 7001, 7002, 7003
BLOCK = 1 << 16


def blocks(count):
    """That many bytes; no two whole blocks of them are equal."""
    block = bytearray(os.urandom(BLOCK))
    number = 0
    while count > 0:
        block[:8] = number.to_bytes(8, "little")
        yield memoryview(block)[: min(count, BLOCK)]
        number += 1
        count -= BLOCK


def sink(connection):
    digest, count = hashlib.sha256(), 0
    while data := connection.recv(BLOCK):
        digest.update(data)
        count += len(data)
    connection.sendall(f"{count} {digest.hexdigest()}\n".encode())


def source(connection):
    digest = hashlib.sha256()
    for block in blocks(int(connection.makefile("r").readline())):
        digest.update(block)
        connection.sendall(block)
    connection.sendall(digest.hexdigest().encode())


def tick(connection):
    connection.sendall(b"x")


def accept(listener, handler):
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                handler(connection)
            except OSError as error:
                print(handler.__name__, error, flush=True)


def serve():
    for port, handler in ((SINK, sink), (SOURCE, source), (TICK, tick)):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=512, dualstack_ipv6=True)
        threading.Thread(target=accept, args=(listener, handler)).start()
    echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    echo.bind(("::", ECHO))
    print("serving", flush=True)
    while True:
        data, sender = echo.recvfrom(65536)
        echo.sendto(data, sender)


def udp(host, size, whole):
    """Sends a datagram until it comes back; `whole` forbids to cut it into fragments."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if whole:
            # IP_MTU_DISCOVER or IPV6_MTU_DISCOVER, with IP_PMTUDISC_DO (linux/in.h, linux/in6.h).
            level, option = (socket.IPPROTO_IPV6, 23) if ":" in host else (socket.IPPROTO_IP, 10)
            sock.setsockopt(level, option, 2)
        sock.connect((host, ECHO))
        sock.settimeout(3)
        data = os.urandom(size)
        for _ in range(20):
            try:
                sock.send(data)
                if sock.recv(65536) == data:
                    return
            except (TimeoutError, ConnectionRefusedError):
                pass
    sys.exit(f"no echo of {size} bytes from {host}")


def ping(host):
    """One echo by ICMP or ICMPv6, as an unprivileged process may send it; the kernel adds id and checksum."""
    family, protocol, request, reply = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129)
        if ":" in host
        else (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0)
    )
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as sock:
        sock.settimeout(60)
        sock.connect((host, 0))
        sock.send(bytes([request, 0, 0, 0, 0, 0, 0, 1]) + b"ping")
        answer = sock.recv(64)
        assert answer[0] == reply and answer[8:] == b"ping", answer


def tcp(host, count):
    with socket.create_connection((host, SINK), 60) as connection:
        digest = hashlib.sha256()
        for block in blocks(count):
            digest.update(block)
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("r").read()
        assert answer.split() == [str(count), digest.hexdigest()], answer
    with socket.create_connection((host, SOURCE), 60) as connection:
        connection.sendall(f"{count}\n".encode())
        data = connection.makefile("rb").read()
        assert data[count:].decode() == hashlib.sha256(data[:count]).hexdigest(), len(data)
    with socket.create_connection((host, TICK), 60) as connection:
        assert connection.makefile("rb").read() == b"x"


def call(host):
    for size in (1, 1400, 4000):
        udp(host, size, False)
    tcp(host, 1 << 20)
    ping(host)
    print("called", host)


def largest(host, size):
    """The largest datagram that passes whole; one byte more must not."""
    udp(host, size, True)
    try:
        udp(host, size + 1, True)
    except OSError as error:
        print("whole up to", size, error.strerror)


{"serve": serve, "call": call, "largest": lambda host, size: largest(host, int(size))}[sys.argv[1]](*sys.argv[2:])
