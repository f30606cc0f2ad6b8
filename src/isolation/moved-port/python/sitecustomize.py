"""
Found first on the path of an instance whose app asks for a port that it cannot have (KILN_PORT_DECLARED): a TCP socket
that is to be bound there is bound to the port that the instance was given (KILN_PORT_ASSIGNED), whatever the address.
All other ports and UDP stay as they are. Then the sitecustomize that would have been found without this one runs.
"""

import os
import sys


def move(declared, assigned):
    import _socket

    families = [getattr(_socket, name) for name in ("AF_INET", "AF_INET6") if hasattr(_socket, name)]
    loopback = ("", "localhost", "::1", "::", "0.0.0.0")
    # Once a socket of this process has been moved, the port on loopback means that one, not the other version's.
    moved = []

    def is_declared(sock, address):
        return (
            sock.family in families
            # The kind without SOCK_NONBLOCK and SOCK_CLOEXEC.
            and sock.type & 0xF == _socket.SOCK_STREAM
            and isinstance(address, tuple)
            and len(address) >= 2
            and address[1] == declared
        )

    def elsewhere(address):
        return (address[0], assigned) + tuple(address[2:])

    def to_bind(sock, address):
        if not is_declared(sock, address):
            return address
        moved.append(True)
        return elsewhere(address)

    def to_connect(sock, address):
        if not moved or not is_declared(sock, address) or not isinstance(address[0], str):
            return address
        own = address[0] in loopback or address[0].startswith("127.")
        return elsewhere(address) if own else address

    original = _socket.socket

    class socket(original):
        """Below every other: the standard library's is made from this, and so are those of gevent and eventlet."""

        __slots__ = ()

        def bind(self, address):
            return original.bind(self, to_bind(self, address))

        def connect(self, address):
            return original.connect(self, to_connect(self, address))

        def connect_ex(self, address):
            return original.connect_ex(self, to_connect(self, address))

    socket.__module__ = "_socket"
    socket.__qualname__ = "socket"
    _socket.socket = socket
    # A .pth file that imports it was faster than this.
    early = sys.modules.get("socket")
    if early is not None:
        for name in ("bind", "connect", "connect_ex"):
            setattr(early.socket, name, getattr(socket, name))

    sys.meta_path.insert(0, Uvloop(lambda port: assigned if port == declared else port))


class Uvloop:
    """uvloop binds without Python's sockets: its loop is told the other port when it is imported."""

    def __init__(self, to_bind):
        self.to_bind = to_bind

    def find_spec(self, name, path=None, target=None):
        if name != "uvloop":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                self.patch(module.Loop)

            spec.loader.exec_module = exec_module
        return spec

    def patch(self, loop_class):
        create_server = loop_class.create_server
        to_bind = self.to_bind

        def moved(self, protocol_factory, host=None, port=None, **more):
            return create_server(self, protocol_factory, host, to_bind(port), **more)

        loop_class.create_server = moved


def run_next():
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec(__name__, [entry for entry in sys.path if os.path.abspath(entry) != here])
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules[__name__] = module
    spec.loader.exec_module(module)


if sys.version_info >= (3, 6):
    numerals = os.environ.get("KILN_PORT_DECLARED", ""), os.environ.get("KILN_PORT_ASSIGNED", "")
    if all(numeral.isdigit() for numeral in numerals):
        move(*map(int, numerals))
    run_next()
