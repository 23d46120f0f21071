"""Hosts on a network of their own, made of Linux network namespaces: for tests of what happens between machines.

Each host is a namespace with one link to a switch, a bridge in a namespace without addresses. A namespace has no name that
could collide or be left behind: it lives as long as the process that holds it, and that one ends when the test does, even
if the test is killed. Without root all of it lies in a user namespace.
"""
import functools
import json
import os
import socket
import subprocess
import sys
import threading

COMMAND_TIMEOUT_S = 10
SWITCH = "switch"
MTU = 1500

# Holds a namespace until its standard input closes. For each byte there it sends back a TCP socket made in the namespace:
# sockets keep the namespace that they were made in, so the test connects without entering it.
HOLDER = """
import socket
channel = socket.socket(fileno=0)
while channel.recv(1):
    with socket.socket() as made:
        socket.send_fds(channel, [b"."], [made.fileno()])
"""

# Everything that a network needs, tried in a namespace that ends with it.
PROBE = """
set -e
ip link add name probe type bridge
ip link add name near type veth peer name far
tc qdisc add dev near root tbf rate 1gbit burst 128kb latency 50ms
"""


class Unavailable(Exception):
    """This machine or user cannot make such a network; says why."""


@functools.cache
def unshare_options():
    """How this user makes a network namespace: as root, else within a user namespace."""
    refusals = []
    for options in ([], ["--user", "--map-root-user"]):
        try:
            subprocess.run(["unshare", *options, "--net", "sh", "-c", PROBE], check=True, capture_output=True, text=True,
                           timeout=COMMAND_TIMEOUT_S, env=_environment())
            return options
        except subprocess.CalledProcessError as error:
            refusals.append(error.stderr.strip())
        except OSError as error:
            refusals.append(str(error))
    raise Unavailable("no network namespaces here: as this user: {}; in a user namespace: {}".format(*refusals))


def _environment():
    """ip and tc lie where the PATH of ordinary users does not look."""
    return os.environ | {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}


class Namespace:
    """A network namespace; `owner` is the one whose user namespace it shares."""

    def __init__(self, owner=None):
        self._lock = threading.Lock()
        enter_user, unshare = [], ["unshare", *unshare_options(), "--net"]
        if owner and unshare_options():
            enter_user = ["nsenter", f"--user=/proc/{owner.pid}/ns/user", "--preserve-credentials"]
            unshare = ["unshare", "--net"]
        self._channel, child_end = socket.socketpair()
        self._channel.settimeout(COMMAND_TIMEOUT_S)
        with child_end:
            self._holder = subprocess.Popen(
                [*enter_user, *unshare, sys.executable, "-I", "-S", "-c", HOLDER], stdin=child_end)
        try:
            self.make_socket().close()  # it holds the namespace once it answers
        except BaseException:
            self.close()
            raise

    @property
    def pid(self):
        return self._holder.pid

    def command(self, argv):
        """`argv` as a command that runs within, as a child of the caller and no longer than the calling thread."""
        user = [f"--user=/proc/{self.pid}/ns/user", "--preserve-credentials"] if unshare_options() else []
        return ["nsenter", *user, f"--net=/proc/{self.pid}/ns/net", "setpriv", "--pdeathsig", "KILL", *map(str, argv)]

    def run(self, argv):
        """What a command prints that runs within; an error if it fails."""
        done = subprocess.run(self.command(argv), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S,
                              env=_environment())
        assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stderr}"
        return done.stdout

    def make_socket(self):
        """A TCP socket of this namespace, not connected."""
        with self._lock:
            self._channel.send(b".")
            data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        assert data, "the process that holds the namespace has ended"
        return socket.socket(fileno=descriptors[0])

    def connect(self, address, timeout):
        """A TCP connection made from within."""
        connection = self.make_socket()
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self):
        self._channel.close()
        try:
            self._holder.wait(COMMAND_TIMEOUT_S)
        finally:
            self._holder.kill()
            self._holder.wait()


class Network:
    """Hosts by name, each with its address, joined by a switch. Every link is shaped to `rate` in both directions; rate and
    burst are written as tc(8) has them."""

    def __init__(self, hosts, rate="1gbit", burst="128kb", subnet="10.77.0"):
        self.rate = rate
        self.burst = burst
        self.addresses = {host: f"{subnet}.{i}" for i, host in enumerate(hosts, 1)}
        self._namespaces = {}
        try:
            self._namespaces[SWITCH] = Namespace()
            self._switch("link", "add", "name", "bridge", "type", "bridge")
            self._switch("link", "set", "bridge", "up")
            for host in hosts:
                self._add(host)
        except BaseException:
            self.close()
            raise

    def _switch(self, *arguments):
        self.exec(SWITCH, ["ip", *arguments])

    def _add(self, host):
        self._namespaces[host] = Namespace(owner=self._namespaces[SWITCH])
        port = f"to-{host}"
        self._switch("link", "add", "name", port, "mtu", MTU, "type", "veth",
                     "peer", "name", "uplink", "mtu", MTU, "netns", self._namespaces[host].pid)
        self._switch("link", "set", port, "master", "bridge", "up")
        for command in (["addr", "add", f"{self.addresses[host]}/24", "dev", "uplink"],
                        ["link", "set", "lo", "up"],
                        ["link", "set", "uplink", "up"]):
            self.exec(host, ["ip", *command])
        for namespace, device in ((SWITCH, port), (host, "uplink")):
            self.exec(namespace, ["tc", "qdisc", "add", "dev", device, "root", "tbf",
                                  "rate", self.rate, "burst", self.burst, "latency", "50ms"])

    def namespace(self, host):
        return self._namespaces[host]

    def exec(self, host, argv):
        """What a command prints that runs on a host; an error if it fails."""
        return self._namespaces[host].run(argv)

    def set_link(self, host, up):
        """Plugs a host's cable in, or pulls it: at the switch, so that the host keeps its address and routes."""
        self._switch("link", "set", f"to-{host}", "up" if up else "down")

    def bytes_sent(self, host):
        """Bytes that left a host by its link since the start."""
        device, = json.loads(self.exec(host, ["ip", "-json", "-statistics", "link", "show", "uplink"]))
        return device["stats64"]["tx"]["bytes"]

    def close(self):
        for namespace in reversed(self._namespaces.values()):
            namespace.close()
        self._namespaces = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
