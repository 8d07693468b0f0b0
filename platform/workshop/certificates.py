"""The certificates by which etcd and its clients recognize each other (mutual TLS).

    .run/certificates/ca.pem       the certificate authority that signed the other two; clients check etcd against it
    .run/certificates/client.pem   the clients' certificate and its private key
    .run/stores/etcd/server.pem    etcd's certificate and its private key

etcd refuses each connection without a certificate of this authority. A web page in the user's browser, another user of
this machine, and a container can open a connection, but they cannot read client.pem.

In production, an authority keeps its key, and certificates last for days or months, so that a stolen one becomes
useless. Here each `up` makes all of them anew and does not store the authority's key, so no further certificate can be
signed. Therefore they need no end of validity, and a wrong clock cannot end the registry's service.
"""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from workshop.files import write_atomically
from workshop.registry import CA, CLIENT

SERVER = "server.pem"  # etcd's certificate and private key
# Also with a clock that begins in 1970. The end is the value for "no well-defined expiration date" (RFC 5280, 4.1.2.5).
VALID_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
VALID_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def make(clients: Path, server: Path, host: str, api: str) -> None:
    """Write new certificates into two folders: for clients, and for the etcd that listens on the IP address `host`.

    `api` is the registry's. For v3, etcd's certificate is a client's as well: with it, etcd's JSON gateway calls etcd.
    """
    authority = Authority()
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] + ([ExtendedKeyUsageOID.CLIENT_AUTH] if api == "v3" else [])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    for folder in (clients, server):
        write_atomically(folder / CA, _pem(authority.certificate))
    write_atomically(clients / CLIENT, authority.sign("client", [ExtendedKeyUsageOID.CLIENT_AUTH]))
    write_atomically(server / SERVER, authority.sign("etcd", purposes, address))


class Authority:
    """A certificate authority. Its private key exists only in memory."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name("certificate authority")
        builder = _builder(self.name, self.name, self.key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def sign(self, name: str, purposes: list[x509.ObjectIdentifier], *extensions: x509.ExtensionType) -> bytes:
        """Return a certificate for these purposes, to be a client or a server, and its new private key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = _builder(_name(name), self.name, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        for extension in (issuer, x509.ExtendedKeyUsage(purposes), *extensions):
            builder = builder.add_extension(extension, critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _pem(builder.sign(self.key, hashes.SHA256())) + private


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Workshop {name}")])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
