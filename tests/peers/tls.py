"""TLS as a stranger sees it: the CA made by the emulator is needed, the name must fit, plain HTTP gets nothing."""

import http.client
import os
import socket
import ssl

from report import READY, check, trusting


def handshake(context, address, server_name):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        with context.wrap_socket(raw, server_hostname=server_name) as secured:
            return secured.version()


def refused(context, address, server_name, reason):
    try:
        handshake(context, address, server_name)
    except ssl.SSLCertVerificationError as error:
        assert reason in str(error), f"refused, but: {error}"
    else:
        raise AssertionError("the handshake succeeded")


for flow in ["api", "bus", "blob", "logs"]:
    with check(f"tls {flow}: trusted with the emulator's CA"):
        assert handshake(trusting(), READY[flow], "localhost") == "TLSv1.3"

with check("tls: production names are in the certificate"):
    for name in [
        "api.server.commerce-hub.io",
        "e-serversync-ns.servicebus.windows.net",
        "simplementedata.blob.core.windows.net",
    ]:
        handshake(trusting(), READY["api"], name)

with check("tls: an unknown CA is refused by the client"):
    empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    empty.load_default_certs()
    refused(empty, READY["api"], "localhost", "unable to get local issuer certificate")

with check("tls: another name is refused by the client"):
    refused(trusting(), READY["api"], "elsewhere.test", "is not valid for 'elsewhere.test'")

with check("tls: the chain holds under strict RFC 5280 rules"):
    strict = trusting()
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(strict, READY["api"], "localhost")

with check("tls: 1.2 is served, 1.1 is not"):
    old = trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(old, READY["api"], "localhost") == "TLSv1.2"
    older = trusting()
    older.minimum_version = ssl.TLSVersion.TLSv1
    older.maximum_version = ssl.TLSVersion.TLSv1_1
    older.set_ciphers("ALL:@SECLEVEL=0")
    try:
        version = handshake(older, READY["api"], "localhost")
    except (ssl.SSLError, ConnectionError):
        version = None
    assert version is None, version

for flow in ["api", "bus", "blob", "logs"]:
    with check(f"tls {flow}: plain HTTP gets no answer"):
        host, port = READY[flow].rsplit(":", 1)
        plain = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            plain.request("GET", "/", headers={"Authorization": f"Bearer {os.environ['TOKEN']}"})
            status = plain.getresponse().status
        except (http.client.HTTPException, ConnectionError):
            status = None
        assert status is None, f"answered {status}"
