"""The registry's own certificate authority: server certificates at each start, client certificates of a few hours.

TLS keys are ECDSA P-256 because the TLS library under gRPC offers no Ed25519 in its handshake; a person's Ed25519 key stays what
signs, and the certificate names it in its URI. Nobody asks here whether a certificate *should* be issued.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from model_organisms.errors import CertificateRefused, ConfigurationInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BACKDATE = timedelta(minutes=5)
"""Clocks of clients may lag a little."""
_AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
"""How long a server certificate lasts; a registry shows a new one when half of that is over."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What the door reads from a client's certificate."""

    user: str
    key_id: str
    thumbprint: str
    not_after: datetime


class Authority:
    """A P-256 certificate authority whose key lies in one 0600 file.

    Args:
        folder: Holds `ca.pem` and `ca.key`.
        origin: Name of the registry, written into every client's URI.
    """

    def __init__(self, folder: Path, origin: str) -> None:
        """Open an authority that `create` made."""
        self.origin = origin
        try:
            self.pem = (folder / "ca.pem").read_bytes()
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate(self.pem)
        except (OSError, ValueError) as error:
            msg = f"The certificate authority in {folder} cannot be read ({error}); restore it from a backup."
            raise ConfigurationInvalid(msg) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            msg = f"{folder / 'ca.key'} is not a P-256 key; restore it from a backup."
            raise ConfigurationInvalid(msg)
        self._key = key

    @classmethod
    def create(cls, folder: Path, origin: str, *, now: datetime) -> Authority:
        """Make a new authority in an existing folder; what is there already stays and is an error."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{origin} model organisms registry"[:64])])
        builder = _certificate(name, name, key.public_key(), now, _AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        _write_new(folder / "ca.key", _private_pem(key))
        _write_new(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, origin)

    def server_certificate(self, hosts: Iterable[str], *, now: datetime) -> tuple[bytes, bytes]:
        """Issue a server certificate under a fresh key that is never written down.

        Args:
            hosts: DNS names and IP addresses clients call.
            now: The time.

        Returns:
            Private key and certificate, PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        certificate = self._issue(
            key.public_key(),
            "registry",
            names=names,
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            now=now,
            not_after=now + SERVER_LIFE,
        )
        return _private_pem(key), certificate.public_bytes(serialization.Encoding.PEM)

    def client_certificate(self, request: bytes, *, user: str, key_id: str, now: datetime, not_after: datetime) -> bytes:
        """Issue a client certificate for a proved key.

        Args:
            request: PKCS#10, DER; only its key is believed.
            user: Resource name of the account.
            key_id: Id of the account's identity key.
            now: The time of the call.
            not_after: When it shall end.

        Returns:
            The certificate, PEM.

        Raises:
            CertificateRefused: The request does not parse, does not prove its key, or the key is not P-256.
        """
        try:
            asked = x509.load_der_x509_csr(request)
            valid = asked.is_signature_valid
            key = asked.public_key()
        except (ValueError, InvalidSignature) as error:
            raise CertificateRefused("The certificate request does not parse; send PKCS#10 in DER.") from error
        if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CertificateRefused("The certificate request must prove a P-256 key; run `mo login` again.")
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self._uri(user, key_id))])
        certificate = self._issue(key, user, names=uri, usage=ExtendedKeyUsageOID.CLIENT_AUTH, now=now, not_after=not_after)
        return certificate.public_bytes(serialization.Encoding.PEM)

    def read_client(self, pem: bytes) -> ClientCertificate:
        """Read who a certificate is for. TLS has checked chain and dates before; this checks what TLS does not.

        1. It was issued by this authority, for clients and for nothing else: it is no server's, and issues no other.
        2. It names exactly one thing, a URI of this registry with a user and a key.
        The caller does the rest: expiry at the time of the call, the deny list, the account.

        Raises:
            CertificateRefused: Any of these fails.
        """
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.verify_directly_issued_by(self._certificate)
            usage = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
            issues = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise CertificateRefused("The certificate is not one of this registry; run `mo login` again.") from error
        prefix = f"mo://{self.origin}/"
        uri = names[0].value if len(names) == 1 and isinstance(names[0], x509.UniformResourceIdentifier) else ""
        user, _, key_id = uri.removeprefix(prefix).partition("?key=")
        if issues or usage != [ExtendedKeyUsageOID.CLIENT_AUTH] or not uri.startswith(prefix) or not key_id:
            raise CertificateRefused("The certificate is not a client certificate of this registry; run `mo login` again.")
        thumbprint = certificate.fingerprint(hashes.SHA256()).hex()
        return ClientCertificate(user, key_id, thumbprint, certificate.not_valid_after_utc)

    def _uri(self, user: str, key_id: str) -> str:
        return f"mo://{self.origin}/{user}?key={key_id}"

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: str,
        *,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        now: datetime,
        not_after: datetime,
    ) -> x509.Certificate:
        common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
        builder = _certificate(common, self._certificate.subject, key, now, not_after - now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())


def utc(moment: datetime) -> datetime:
    """Cut a time to whole seconds, which is all a certificate can say."""
    return moment.astimezone(UTC).replace(microsecond=0)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(utc(now) - _BACKDATE).not_valid_after(utc(now + life))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
