"""Which settings of a user's for pip and npm are kept in set-up: those that say how to reach a package index."""

import configparser

import pytest

from workshop import installers


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    return tmp_path


def test_of_pip_s_settings_those_of_the_index_are_kept_and_variables_have_precedence(home):
    (home / ".config" / "pip" / "pip.conf").write_text(
        "[global]\nindex_url = https://one.example/simple\nuser = yes\nextra-index-url =\n  https://two.example\n"
        "  https://three.example\n[install]\nproxy = http://proxy.example:3128\ntarget = /elsewhere\n"
    )
    caller = {"HOME": str(home), "PIP_INDEX_URL": "https://four.example/simple", "PIP_PREFIX": "/elsewhere"}
    caller["XDG_CONFIG_DIRS"] = str(home / "none")
    kept = installers.pip_settings(caller)

    assert kept["PIP_INDEX_URL"] == "https://four.example/simple"
    assert kept["PIP_EXTRA_INDEX_URL"] == "https://two.example https://three.example"
    assert kept["PIP_PROXY"] == "http://proxy.example:3128"
    assert kept["PIP_CONFIG_FILE"] == "/dev/null"
    assert not {"PIP_USER", "PIP_TARGET", "PIP_PREFIX"} & kept.keys()


def test_pip_s_files_are_not_read_when_the_caller_has_excluded_them(home):
    (home / ".config" / "pip" / "pip.conf").write_text("[global]\nindex-url = https://one.example/simple\n")
    assert "PIP_INDEX_URL" not in installers.pip_settings({"HOME": str(home), "PIP_CONFIG_FILE": "/dev/null"})


def test_a_file_of_pip_s_that_cannot_be_read_is_an_error(home):
    (home / ".config" / "pip" / "pip.conf").write_text("no section\n")
    with pytest.raises(configparser.Error):
        installers.pip_settings({"HOME": str(home)})


def test_of_npm_s_settings_those_of_the_registry_are_kept(home):
    (home / ".npmrc").write_text(
        "; a comment\nregistry=https://one.example/\n//one.example/:_authToken=${TOKEN_OF_ONE}\n"
        "omit = dev\n@us:registry = 'https://two.example'\ndry-run=true\ncafile=/etc/ca.pem\n"
    )
    caller = {"HOME": str(home), "TOKEN_OF_ONE": "t0ken", "NPM_CONFIG_STRICT_SSL": "false", "npm_config_global": "true"}
    kept = {key.removeprefix("npm_config_"): value for key, value in installers.npm_settings(caller).items()}

    for key in ("userconfig", "globalconfig"):
        assert kept.pop(key).startswith("/nonexistent/")
    kept.pop("NODE_EXTRA_CA_CERTS", None)
    assert kept == {
        "registry": "https://one.example/",
        "//one.example/:_authToken": "t0ken",
        "@us:registry": "https://two.example",
        "cafile": "/etc/ca.pem",
        "strict-ssl": "false",
    }
