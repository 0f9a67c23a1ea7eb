"""Why a connection could not be made, where TLS is the reason, in words that say what to do."""

import re

from pdserve.rpc.tls import ClientTls

_NO_CONNECTION = "failed to connect"
_CLOSED = re.compile("Socket closed|Connection reset|Broken pipe")
_REFUSED = re.compile("CERTIFICATE_VERIFY_FAILED: ([^:]+)")


def handshake_failure(details: str, tls: ClientTls | None) -> str:
    """What gRPC's `details` of a failed call mean; empty where TLS is not the reason.

    A server says nothing to a client that it refuses: then the text is the likely reason.
    """
    if _NO_CONNECTION not in details:
        return ""
    if tls is None:
        return "it closes plain connections: it may want TLS" if _CLOSED.search(details) else ""
    if "WRONG_VERSION_NUMBER" in details:
        return "it speaks no TLS"
    if "Hostname Verification" in details:
        name = f"the name {tls.server_name}" if tls.server_name else "this address"
        return f"its certificate is not for {name} (tls_server_name)"
    if refused := _REFUSED.search(details):
        return f"its certificate is refused: {refused[1]} (tls_ca)"
    if _CLOSED.search(details):
        shown = "refuses the certificate of this client" if tls.cert else "wants a certificate"
        return f"it {shown} (tls_cert)"
    return ""
