"""Run pip or npm with a clean environment: `.venv/bin/python -I platform/workshop/installers.py pip|npm ARGUMENT…`

A user's settings may make pip install elsewhere (`target`, `prefix`, `user`) or nothing at all (`dry-run`), and make
npm leave packages out (`omit`). Only the settings that say how to reach a package index are kept: the index itself,
proxies and certificates. The script runs before any package is installed: it imports only the standard library.
"""

import configparser
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# Variables of the caller that say how to reach the network, and where caches and temporary files are.
KEPT = {
    "HOME", "NETRC", "PIP_CACHE_DIR", "TMPDIR", "XDG_CACHE_HOME",
    "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
    *(name for proxy in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (proxy, proxy.upper())),
}  # fmt: skip
PIP_SETTINGS = (
    "index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "keyring-provider",
    "proxy", "cert", "client-cert", "timeout", "default-timeout", "retries",
)  # fmt: skip
PIP_SECTIONS = ("global", "install")  # the second one has precedence
# A setting such as //registry.example/:_authToken is what one registry asks for.
NPM_SETTINGS = re.compile(
    r"//.+|@[^:]+:registry|registry|cache|(https?-)?proxy|no-?proxy|cafile|ca|cert|key|strict-ssl"
    r"|fetch-retries|fetch-retry-.+|fetch-timeout"
)
NPM_LINE = re.compile(r"\s*([^;#=\s][^=]*?)\s*=\s*(.*?)\s*")
NPM_PREFIX = "npm_config_"
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BIN = Path(sys.prefix, "bin")
COMMANDS = {"pip": [sys.executable, "-I", "-m", "pip"], "npm": [str(BIN / "npm")]}


def main() -> None:
    """Become pip or npm."""
    name, *arguments = sys.argv[1:]
    try:
        settings = {"pip": pip_settings, "npm": npm_settings}[name](os.environ)
    except (OSError, ValueError, configparser.Error) as error:
        sys.exit(f"The configuration of {name} cannot be read: {error}. Correct it, then run this again.")
    kept = {key: value for key, value in os.environ.items() if key in KEPT}
    environment = kept | {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"} | settings
    command = [*COMMANDS[name], *arguments]
    os.execve(command[0], command, environment)


def pip_settings(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of pip's that are kept, from its configuration files and variables, as variables.

    Raises OSError, ValueError or configparser.Error when a file cannot be read.
    """
    found = {}
    for file in pip_files(caller):
        parser = configparser.RawConfigParser()
        parser.read(file, encoding="utf-8")
        for section in PIP_SECTIONS:
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for name in PIP_SETTINGS:
        if value := caller.get(_pip_variable(name)):
            found[name] = value
    kept = {_pip_variable(name): " ".join(found[name].split()) for name in PIP_SETTINGS if name in found}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def pip_files(caller: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, in the order in which each one overrides those before it.

    See https://pip.pypa.io/en/stable/topics/configuration/.
    """
    named = caller.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    everybodys = [*(caller.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)[::-1]]
    files = [*(Path(folder, "pip/pip.conf") for folder in everybodys), Path("/etc/pip.conf")]
    if named and Path(named).exists():
        return [Path(named), *files]
    home = Path(caller.get("HOME") or Path.home())
    return [*files, home / ".pip/pip.conf", Path(caller.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")]


def _pip_variable(setting: str) -> str:
    return f"PIP_{setting.upper().replace('-', '_')}"


def npm_settings(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of npm's that are kept, from the user's configuration and variables, as variables.

    Raises OSError or ValueError when a file cannot be read.
    """
    names = (key for key in caller if key.lower().startswith(NPM_PREFIX))
    variables = {_npm_setting(name[len(NPM_PREFIX) :]): caller[name] for name in names}
    home = Path(caller.get("HOME") or Path.home())
    found = {}
    for file in (Path(variables.get("globalconfig", "/etc/npmrc")), Path(variables.get("userconfig", home / ".npmrc"))):
        found |= dict(_npm_lines(file, caller))
    kept = {name: value for name, value in (found | variables).items() if NPM_SETTINGS.fullmatch(name)}
    # npm refuses to read one file as two levels of its configuration: two names, and no file has either.
    files = {"userconfig": "/nonexistent/user", "globalconfig": "/nonexistent/global"}
    return {f"{NPM_PREFIX}{name}": value for name, value in (kept | files).items()} | _certificates(caller)


def _npm_setting(name: str) -> str:
    return name if name.startswith("//") else name.lower().replace("_", "-")


def _npm_lines(file: Path, caller: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Read the settings in a file, with ${NAME} replaced by the variable of that name."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := NPM_LINE.fullmatch(line):
            yield match[1], re.sub(r"\$\{([^}]+)\}", lambda name: caller.get(name[1], ""), match[2].strip("\"'"))


def _certificates(caller: Mapping[str, str]) -> dict[str, str]:
    """Return what makes Node.js trust what this system trusts, such as a company's proxy, not only its own list."""
    if "NODE_EXTRA_CA_CERTS" in caller or not SYSTEM_CERTIFICATES.exists():
        return {}
    return {"NODE_EXTRA_CA_CERTS": str(SYSTEM_CERTIFICATES)}


if __name__ == "__main__":
    main()
