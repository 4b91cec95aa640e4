"""A private certificate authority, with a certificate of a server and one of a client."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_H: Final = 1  # before and after now
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority's certificate, and certificate and key of each side."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """An authority that nobody else knows; its server is 127.0.0.1 and no other name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("private authority")
    own = _builder(name, name, key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    authority = folder / "authority.pem"
    authority.write_bytes(own.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    server, server_key = _issue(folder, "server", name, key)
    client, client_key = _issue(folder, "client", name, key)
    return Certificates(authority, server, server_key, client, client_key)


def _issue(folder: Path, who: str, issuer: x509.Name, by: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    signed = _builder(_name(who), issuer, key).add_extension(alternative, critical=False)
    certificate, key_file = folder / f"{who}.pem", folder / f"{who}.key"
    certificate.write_bytes(signed.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key_file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now, valid = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=VALID_H)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - valid)
        .not_valid_after(now + valid)
    )
