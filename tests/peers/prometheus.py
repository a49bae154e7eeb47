"""A private CA and a real Prometheus behind TLS and a password, which scrapes itself and has one rule of each kind."""

import base64
import contextlib
import hashlib
import json
import pathlib
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import bcrypt

from processes import free_port, started, wait_until

USER = "scraper"
SUMMARY = "raised by the peers lane"

CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: self
    scheme: https
    tls_config: {{ca_file: ca.pem}}
    basic_auth: {{username: {user}, password_file: password}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
RULES = f"""\
groups:
  - name: peers
    rules:
      - record: peers:up:sum
        expr: sum(up)
      - alert: AlwaysFiring
        expr: vector(7)
        labels: {{severity: page}}
        annotations: {{summary: "{SUMMARY}"}}
"""


def make_certificates(folder: pathlib.Path):
    """`ca.pem`, `other-ca.pem`, and `server.pem` with `server.key` for 127.0.0.1 by the first, made by openssl."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for ca in ("ca", "other-ca"):
        # Both of one name, so that the signature alone tells them apart.
        openssl("req", "-x509", *new_key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "2",
                "-subj", "/CN=Peers CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=prometheus")
    (folder / "server.ext").write_text(
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "server.ext", "-out", "server.pem")


class Prometheus:
    """The running server, and direct questions to it that go around MCPist."""

    def __init__(self, folder, port, password):
        self.folder, self.port = folder, port
        self.ca, self.other_ca = folder / "ca.pem", folder / "other-ca.pem"
        self._authorization = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.ca))).open

    def url(self, path):
        return f"https://127.0.0.1:{self.port}{path}"

    def pin(self):
        """SHA-256 of its SubjectPublicKeyInfo, computed by openssl."""

        def openssl(*arguments, given=None):
            command = ["openssl", *arguments]
            return subprocess.run(command, cwd=self.folder, input=given, check=True, capture_output=True).stdout

        key = openssl("x509", "-in", "server.pem", "-noout", "-pubkey")
        return hashlib.sha256(openssl("pkey", "-pubin", "-outform", "DER", given=key)).hexdigest()

    def _get(self, path):
        """The status and the body of an answer."""
        request = urllib.request.Request(self.url(path), headers={"Authorization": self._authorization})
        try:
            with self._open(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def ask(self, path, **query):
        """The status and the JSON of an answer of the API."""
        status, body = self._get(f"{path}?{urllib.parse.urlencode(query)}")
        return status, json.loads(body)

    def _settled(self):
        """Whether it has scraped itself and evaluated its rules."""
        if self._get("/-/ready")[0] != 200:
            return False
        value = {name: self.ask("/api/v1/query", query=name)[1]["data"]["result"] for name in ("up", "peers:up:sum")}
        alerts = self.ask("/api/v1/alerts")[1]["data"]["alerts"]
        return (all(found and found[0]["value"][1] == "1" for found in value.values())
                and any(alert["state"] == "firing" for alert in alerts))


@contextlib.contextmanager
def running(folder: pathlib.Path, password):
    """A Prometheus that is ready for questions. Its folder holds the password, so it is not the appliance's."""
    folder.mkdir()
    make_certificates(folder)
    port = free_port()
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(8)).decode()
    (folder / "password").write_text(password)
    (folder / "prometheus.yml").write_text(CONFIG.format(user=USER, port=port))
    (folder / "rules.yml").write_text(RULES)
    (folder / "web.yml").write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
        f"basic_auth_users: {{{USER}: '{hashed}'}}\n")
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--web.config.file={folder}/web.yml",
               f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with started(command, folder / "log") as process:
        server = Prometheus(folder, port, password)

        def ready():
            if process.poll() is not None:
                raise RuntimeError("Prometheus ended: " + (folder / "log").read_text()[-2000:])
            return server._settled()

        wait_until(ready, "Prometheus to scrape itself")
        yield server
