"""What a server with authentication needs around it: certificates, an issuer of tokens, and the server."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from server import binary, free_port


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int | None = None) -> str:
    return base64url(value.to_bytes(length or (value.bit_length() + 7) // 8))


class Pair:
    """A certificate and its key, as files."""

    def __init__(self, folder: Path, name: str):
        self.cert = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"

    def write(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        pem = serialization.Encoding.PEM
        self.key.touch(mode=0o600)
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.key.write_bytes(key.private_bytes(pem, *plain))
        self.cert.write_bytes(cert.public_bytes(pem))


class Authority:
    """Signs certificates of servers and clients."""

    def __init__(self, folder: Path, name: str = "authority"):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = self.begun(self.name, self.key, 86400).add_extension(constraints, critical=True)
        self.pair = Pair(folder, name)
        self.pair.write(certificate.sign(self.key, hashes.SHA256()), self.key)

    def begun(self, subject: x509.Name, key: Any, seconds: float) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
        )

    def issue(
        self, name: str, *, uri: str | None = None, unit: str | None = None, seconds: float = 86400
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if unit:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ip_address("127.0.0.1")),
        ]
        if uri:
            names = [x509.UniformResourceIdentifier(uri)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self.begun(x509.Name(subject), key, seconds)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        pair = Pair(self.folder, name)
        pair.write(certificate.sign(self.key, hashes.SHA256()), key)
        return pair


class Issuer:
    """An OpenID Connect issuer, as far as it shows its keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.fetches = 0
        self.rotate("first")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages = {
                    "/.well-known/openid-configuration": {
                        "issuer": issuer.url,
                        "jwks_uri": f"{issuer.url}/keys",
                    },
                    "/keys": {"keys": [issuer.jwk(kid) for kid in issuer.keys]},
                }
                page = pages.get(self.path)
                issuer.fetches += self.path == "/keys"
                body = json.dumps(page).encode()
                self.send_response(200 if page else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def rotate(self, kid: str, curve: bool = False) -> None:
        """Another key instead of those before."""
        if curve:
            self.keys = {kid: ec.generate_private_key(ec.SECP256R1())}
        else:
            self.keys = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def jwk(self, kid: str) -> dict[str, Any]:
        public = self.keys[kid].public_key().public_numbers()
        if isinstance(public, rsa.RSAPublicNumbers):
            return {"kty": "RSA", "kid": kid, "use": "sig", "n": number(public.n), "e": number(public.e)}
        x, y = number(public.x, 32), number(public.y, 32)
        return {"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y}

    def token(self, sub: str = "alice", **claims: Any) -> str:
        kid, key = next(iter(self.keys.items()))
        is_rsa = isinstance(key, rsa.RSAPrivateKey)
        now = int(time.time())
        body = {"iss": self.url, "aud": "steadfast", "sub": sub, "iat": now, "exp": now + 300, **claims}
        header = {"alg": "RS256" if is_rsa else "ES256", "kid": kid, "typ": "JWT"}
        parts = [base64url(json.dumps(part).encode()) for part in (header, body)]
        message = ".".join(parts).encode()
        if is_rsa:
            signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32) + s.to_bytes(32)
        return ".".join([*parts, base64url(signature)])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Secured:
    """A server from a configuration file, with TLS.

    `policies` are its Cedar policies, everything permitted unless said otherwise; with `None` it has those
    that are built in.
    """

    def __init__(
        self,
        folder: Path,
        auth: str,
        tls: str = "",
        policies: str | None = "permit(principal, action, resource);",
    ):
        self.folder = folder
        self.authority = Authority(folder)
        self.pair = self.authority.issue("server")
        self.port, self.http_port = free_port(), free_port()
        self.db = folder / "steadfast.db"
        self.log = folder / "server.log"
        self.config = folder / "steadfast.toml"
        self.policies = folder / "policies"
        policy = ""
        if policies is not None:
            self.policies.mkdir()
            (self.policies / "policies.cedar").write_text(policies)
            policy = f"[policy]\npath = '{self.policies}'\n"
        self.config.write_text(
            f"grpc = '127.0.0.1:{self.port}'\nhttp = '127.0.0.1:{self.http_port}'\n"
            f"[store]\npath = '{self.db}'\n[log]\nlevel = 'debug'\n"
            f"[tls]\ncert = '{self.pair.cert}'\nkey = '{self.pair.key}'\n{tls}\n{policy}{auth}"
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin_key(self) -> str:
        return (self.folder / "steadfast.db.admin-key").read_text().strip()

    @property
    def ca(self) -> bytes:
        return self.authority.pair.cert.read_bytes()

    def start(self) -> None:
        out = open(self.log, "ab")
        command = [binary(), "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + 30
        while True:
            try:
                if self.get("/healthz")[0] == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                assert self.process.wait(20) == 0, self.log.read_text()[-2000:]
            finally:
                self.process.kill()
                self.process = None

    def get(self, path: str, key: str | None = None, pair: Pair | None = None) -> tuple[int, bytes, Any]:
        """Status, body and headers of an answer over HTTPS."""
        context = ssl.create_default_context(cadata=self.ca.decode())
        if pair:
            context.load_cert_chain(pair.cert, pair.key)
        request = urllib.request.Request(f"https://127.0.0.1:{self.http_port}{path}")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def command(self, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        """One of our own commands, as this server's user."""
        command = [binary(), *arguments, "--address", f"https://127.0.0.1:{self.http_port}"]
        command += ["--tls-ca", str(self.authority.pair.cert)]
        env = {"STEADFAST_API_KEY": key} if key else {}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)

    def new_key(self, name: str, *more: str) -> str:
        done = self.command("keys", "create", "--name", name, *more, key=self.admin_key)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def entries(self, key: str, namespace: str = "default") -> list[dict[str, Any]]:
        """All entries of a log that are signed."""
        status, checkpoint, _ = self.get(f"/log/{namespace}/checkpoint", key)
        if status == 404:
            return []
        assert status == 200, checkpoint
        size = int(checkpoint.splitlines()[1])
        found: list[dict[str, Any]] = []
        for tile in range((size + 255) // 256):
            width = min(256, size - tile * 256)
            partial = "" if width == 256 else f".p/{width}"
            _, bundle, _ = self.get(f"/log/{namespace}/tile/entries/{tile:03}{partial}", key)
            while bundle:
                length = int.from_bytes(bundle[:2])
                found.append(json.loads(bundle[2 : 2 + length]))
                bundle = bundle[2 + length :]
        return found
