# shellcheck shell=bash
# Tells whether what set-up installs is ready. Sourced by the launcher, at every command, and by provision.sh. The current
# folder must be the repository.
#
# A Python environment is ready when its stamp, .venv/ready, names the folder and the interpreter that it was made for
# and the packages that it was made from. Set-up writes the stamp last, once every package has been imported.

# Prints what the stamp must be here and now. Scripts in .venv/bin name its folder; packages are compiled for one minor
# version of Python, which the name of the interpreter's file contains, such as /usr/bin/python3.11.
python_stamp() {
    printf 'folder %s\ninterpreter %s\n' "$(readlink -f .venv)" "$(readlink -f .venv/bin/python)"
    cat requirements.lock
}

python_is_ready() { [ -x .venv/bin/python ] && python_stamp | cmp -s - .venv/ready; }
frontend_is_ready() { cmp -s package-lock.json node_modules/installed-lock.json; }
