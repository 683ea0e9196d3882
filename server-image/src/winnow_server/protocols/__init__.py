"""What other servers' clients send and expect: one module a protocol, on top of the one Service."""
