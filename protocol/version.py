"""The versions a peer may ask for."""

__version__ = "0.2.0"
PROTOCOL_VERSION = 1
STORE_FORMAT = 2
