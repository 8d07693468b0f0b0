#!/usr/bin/env bash
# Installs what the workshop needs on Debian or Ubuntu: packages of the system, a Python environment, front-end files.
#
#   provision.sh                 install what is missing; what is there already is left alone
#   provision.sh --bundle FILE   from a file that `./workshop bundle` has made, not from the network
#   provision.sh --system        only the packages of the system, as an image needs them
#   provision.sh --test          and what only the test suite needs
#   provision.sh --check         say what is missing, install nothing
#   provision.sh --made-for      say what a bundle made here is for: the machine, the lock files, the packages
#
# Exit status: 0 ready; 1 something you can mend; 2 an administrator of this machine must.
set -euo pipefail

bundle=
if [[ ${1:-} == --bundle* ]]; then
    case $#,$1 in
        2,--bundle) bundle=$2 ;;
        1,--bundle=*) bundle=${1#--bundle=} ;;
    esac
    [ -n "$bundle" ] || {
        printf 'Usage: ./workshop setup --bundle FILE\n\nError: which FILE?\n' >&2
        exit 2
    }
    bundle=$(realpath --canonicalize-missing -- "$bundle")
fi
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=platform/readiness.sh
. platform/readiness.sh

python=/usr/bin/python3
# package: why
packages=(
    "ca-certificates: to check whom packages are downloaded from"
    "python3: runs the platform and the application"
    "python3-venv: keeps their Python packages apart from the system's"
    "haproxy: the load balancer"
    "redis-server: the message queue"
    "postgresql: the databases, for up --db postgres"
    "etcd-server: the service registry"
    "etcd-client: to look into the registry by hand"
)
# What only the tests and the printing of slides use. Where the distribution has no such package, what needs it is skipped.
test_packages=(
    "chromium: two people chat in a real browser"
    "debootstrap: makes the bare system in which the set-up is tested"
    "iproute2: takes the network away from it"
    "shellcheck: checks the shell scripts"
    "vagrant: checks the Vagrantfile"
)
command -v dockerd >/dev/null || test_packages+=("docker.io: runs containers") # if Docker is not there in another way

is_installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -q '^installed$'; }

missing_packages() {
    local line
    for line in "${packages[@]}"; do
        is_installed "${line%%:*}" || echo "$line"
    done
}

has_candidate() { LC_ALL=C apt-cache policy "$1" | grep -q 'Candidate: [^(]'; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

may_become_root() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }; }

# Runs a long command quietly: shows which step it is at, keeps the rest, and prints the end of it only if it fails.
run_showing() {
    local steps=$1 log line
    shift
    log=$(mktemp)
    if "$@" 2>&1 | while IFS= read -r line; do
        echo "$line" >>"$log"
        if [[ $line =~ $steps ]] && [ -t 1 ]; then printf '\r\033[K  %s' "${line:0:70}"; fi
    done; then
        [ ! -t 1 ] || printf '\r\033[K'
        rm -f "$log"
    else
        printf '\n' && tail -n 20 "$log" && rm -f "$log"
        return 1
    fi
}

temporary=() # files of the system
unpacked=    # a folder: what the bundle holds
clean_up() {
    [ ${#temporary[@]} = 0 ] || as_root rm -f "${temporary[@]}"
    [ -z "$unpacked" ] || rm -rf "$unpacked"
}
trap clean_up EXIT

# Puts a file into the system, until this script ends.
put_for_now() {
    local file=$1 content=$2
    as_root mkdir -p "$(dirname "$file")" || return 1
    temporary+=("$file")
    echo "$content" | as_root tee "$file" >/dev/null && as_root chmod 755 "$file"
}

# Debian starts a server as it is installed, on its default port, and makes databases for PostgreSQL: ours are started
# by `./workshop up`, on other ports, and have their data in .run/.
install_packages() {
    local policy=/usr/sbin/policy-rc.d package
    [ -e $policy ] || put_for_now $policy $'#!/bin/sh\nexit 101' || return 1
    put_for_now /etc/postgresql-common/createcluster.d/workshop.conf 'create_main_cluster = false' || return 1
    run_showing '^(Get|Hit)' as_root apt-get "${apt_options[@]}" update || return 1
    run_showing '^(Unpacking|Setting up)' as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get "${apt_options[@]}" install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" || return 1
    if [ -d /run/systemd/system ]; then
        for package in "$@"; do
            case $package in
                haproxy | redis-server | postgresql) as_root systemctl disable --now --quiet "$package" ;;
                etcd-server) as_root systemctl disable --now --quiet etcd ;;
            esac
        done
    fi
}

# Says why the folder can not be used; nothing if it can. The path of .run/ is part of configuration files, and of the
# names of sockets, which Linux limits to 107 characters: these are the limits of supervisor.py, known before Python is.
LONGEST_RUN_FOLDER=67
path_problem() {
    local run
    run=$(readlink -m -- "${WORKSHOP_RUN_DIR:-.run}")
    if [[ $PWD == *[:$'\n']* ]]; then
        echo "The path of the repository, $PWD, contains a colon or a line break. Move the repository."
    elif [[ ! $run =~ ^[A-Za-z0-9_./+@~,-]+$ ]]; then
        echo "The path $run contains blanks or unusual characters. Move the repository to a folder with a plain path."
    elif [ ${#run} -gt $LONGEST_RUN_FOLDER ]; then
        echo "The path $run has ${#run} characters, and sockets allow $LONGEST_RUN_FOLDER." \
            "Move the repository to a folder with a shorter path."
    fi
}

# Prints what is wrong with what is installed, in one line, and fails; prints nothing if nothing is.
proof() { "$1" -I platform/workshop/proof.py "$2" 2>&1 | tail -n 1; }

# Say why the Python environment or the front-end files are not ready; nothing if they are. With --prove, they are looked
# at as well, and not only their stamps.
python_problem() {
    local ours theirs problem
    if python_is_ready; then
        [ "${1:-}" != --prove ] || problem=$(proof .venv/bin/python packages) || echo "damaged: .venv/ ($problem)"
        return
    fi
    if [ ! -e .venv/ready ]; then
        echo "missing: the Python packages of requirements.lock, in .venv/"
        return
    fi
    mapfile -t ours < <(python_stamp)
    mapfile -t theirs <.venv/ready
    if [ ! -x .venv/bin/python ] || [ "${ours[1]}" != "${theirs[1]:-}" ]; then
        echo "made for another Python: .venv/ (${theirs[1]#interpreter })"
    elif [ "${ours[0]}" != "${theirs[0]}" ]; then
        echo "made in another folder: .venv/ (${theirs[0]#folder })"
    else
        echo "made from another requirements.lock: .venv/"
    fi
}
frontend_problem() {
    local problem
    if ! frontend_is_ready; then
        echo "missing: the front-end files of package-lock.json, in node_modules/"
    elif [ "${1:-}" = --prove ] && [ -x $python ] && ! problem=$(proof $python frontend); then
        echo "damaged: node_modules/ ($problem)"
    fi
}

# Three lines: the machine (as far as it is known: a bare one has no Python yet), the lock files, the packages.
made_for() {
    # shellcheck source=/dev/null
    (. /etc/os-release && printf '%s' "$NAME ${VERSION_ID:-}, $(dpkg --print-architecture)")
    [ ! -x $python ] || $python -c 'import sys; print(", Python %d.%d" % sys.version_info[:2], end="")'
    printf '\n%s\n' "$(cat requirements.lock package-lock.json | sha256sum)"
    echo "${packages[*]%%:*}"
}

refuse() {
    echo "$1" >&2
    exit 1
}

# Unpacks the bundle, if it is whole and fits this machine, and has apt and pip take what they install from it alone.
apt_options=()
advice="Is the network there? Once it is, run this again."
use_bundle() {
    local theirs ours said
    [[ -f $bundle && -r $bundle ]] || refuse "$bundle is missing, or no file that you may read."
    mapfile -t theirs < <(tar -xOf "$bundle" --occurrence=1 made-for 2>/dev/null)
    mapfile -t ours < <(made_for)
    [ ${#theirs[@]} = 3 ] || refuse "$bundle is no bundle: \`./workshop bundle FILE\` makes one."
    [[ ${theirs[0]}, == "${ours[0]},"* ]] || refuse "$bundle is for ${theirs[0]}; this machine is ${ours[0]}."
    [ "${theirs[*]:1}" = "${ours[*]:1}" ] ||
        refuse "$bundle is for another version of the workshop, which needs other packages: make it anew with this one."

    unpacked=$(mktemp -d "${TMPDIR:-/var/tmp}/bundle.XXXXXX") # in /var/tmp, since /tmp may be memory
    said=$(exec 2>&1 && tar -C "$unpacked" --no-same-owner -xf "$bundle" && cd "$unpacked" &&
        sha256sum --check --quiet SHA256SUMS) ||
        refuse "$bundle cannot be unpacked (${said%%$'\n'*}): copy it again, or make room on this disk."
    echo "$bundle is whole, and for this machine."

    mkdir -p "$unpacked/lists/partial"
    echo "deb [trusted=yes] file:$unpacked/debs ./" >"$unpacked/sources.list"
    apt_options=(
        -o Dir::Etc::SourceList="$unpacked/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$unpacked/lists"
        -o APT::Sandbox::User=root # nothing is downloaded, and the folder is nobody else's to read
        -o APT::Get::Remove=false  # rather fail than have something make way
    )
    export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS="$unpacked/wheels"
    advice="The bundle does not go with what this machine has already. Where the network is, run: ./workshop setup"
}

command -v dpkg-query >/dev/null || {
    echo "This is neither Debian nor Ubuntu. Use a machine, or a virtual one, with Debian 12 or 13." >&2
    exit 2
}
if [ -x $python ] && ! $python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is older than 3.11. Use Debian 12 or 13." >&2
    exit 2
fi

# After a `sudo ./workshop`, or in a folder of somebody else's.
unwritable=()
for folder in "$PWD" "$PWD/.venv" "$PWD/node_modules"; do
    if [ -e "$folder" ] && [ ! -w "$folder" ]; then unwritable+=("$folder"); fi
done

if [ "${1:-}" = --test ]; then
    # Without the lists of the archive, which a bare system lacks, apt knows no package.
    compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || ! may_become_root ||
        run_showing '^(Get|Hit)' as_root apt-get update || true
    for line in "${test_packages[@]}"; do
        if is_installed "${line%%:*}" || has_candidate "${line%%:*}"; then
            packages+=("$line")
        else
            echo "This distribution has no package ${line%%:*}. What needs it is skipped (${line#*: })."
        fi
    done
fi
mapfile -t missing < <(missing_packages)
install_command="apt-get install --no-install-recommends ${missing[*]%%:*}"

if [ "${1:-}" = --made-for ]; then
    made_for
    exit 0
fi

path_problem=$(path_problem)
if [ "${1:-}" = --check ]; then
    [ ${#unwritable[@]} = 0 ] || printf 'cannot be written by you: %s\n' "${unwritable[@]}"
    [ ${#missing[@]} = 0 ] || printf 'missing package: %s\n' "${missing[@]}"
    [ -z "$path_problem" ] || echo "$path_problem"
    python_problem
    frontend_problem
    if [ ${#missing[@]} -gt 0 ] && ! may_become_root; then
        echo "An administrator must first run: $install_command"
        exit 2
    elif [ ${#unwritable[@]} -gt 0 ]; then
        echo "Copy the repository to a folder of your own, or run: sudo chown -R $(id -un) $PWD"
        exit 1
    elif [ -n "$path_problem" ]; then
        exit 1
    elif [ ${#missing[@]} -gt 0 ] || ! python_is_ready || ! frontend_is_ready; then
        echo "Run: ./workshop setup"
        exit 1
    fi
    echo "Nothing is missing."
    exit 0
fi

[ -z "$path_problem" ] || refuse "$path_problem"

if [ -n "$bundle" ]; then
    use_bundle
    install_command="$PWD/workshop setup --bundle $bundle"
fi

# The files of an archive that was unpacked without its permissions.
if [ -e workshop ] && [ ! -x workshop ] && chmod +x workshop .ci/run platform/provision.sh platform/*/*.sh; then
    echo "The file workshop was not executable. It is now."
fi

# Two set-ups at a time would each remove what the other one installs. Where there are no locks, nobody waits.
exec {folder}<.
flock --nonblock --conflict-exit-code 9 "$folder" || [ $? != 9 ] || {
    echo "Another set-up is at work in this folder. Waiting until it has ended."
    flock "$folder"
}

prove=--prove
[ "${1:-}" != --test ] || prove= # it is for the tests to find out
python_problem=$(python_problem $prove)
frontend_problem=$(frontend_problem $prove)

if [ ${#unwritable[@]} -gt 0 ] && [ -n "$python_problem$frontend_problem" ]; then
    echo "${unwritable[0]} cannot be written by you: copy the repository to a folder of your own," \
        "or run: sudo chown -R $(id -un) $PWD" >&2
    exit 1
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing packages of the system:"
    printf '  %s\n' "${missing[@]}"
    if ! may_become_root; then
        echo "You are not root, and there is no sudo to become it. Ask an administrator to run:" >&2
        echo "  $install_command" >&2
        exit 2
    fi
    install_packages "${missing[@]%%:*}" || refuse "apt-get failed (see above). $advice"
fi
[ "${1:-}" != --system ] || exit 0

installer() { .venv/bin/python -I platform/workshop/installers.py "$@"; } # pip or npm, with a clean environment

# Each file is checked against its hash; nothing is installed that the lock does not name.
pip_install() {
    run_showing '^(Collecting|Building|Installing)' installer pip install --progress-bar off --use-pep517 \
        --no-build-isolation --no-deps --require-hashes -r "$1" || refuse "pip failed (see above). $advice"
}

# Says why something is installed that was there already.
say_why() { case $1 in missing:*) ;; *) echo "$1" ;; esac }

if [ -n "$python_problem" ]; then
    say_why "$python_problem"
    echo "Installing the Python packages of requirements.lock into .venv/ (a minute or two)"
    [ ! -L .venv ] || rm .venv # not what it leads to, which may be another repository's
    rm -f .venv/ready
    $python -I -m venv --clear .venv ||
        refuse "Python cannot make .venv/ (see above). Make room on this disk, then run this again."
    # What builds the packages that have no wheel comes first: pip would download another version of it, without a hash.
    pip_install <(awk '/^[^ #]/ { is_builder = /^setuptools==/ } is_builder' requirements.lock)
    pip_install requirements.lock
    problem=$(proof .venv/bin/python packages) || refuse "The packages in .venv/ do not work: $problem. Run this again."
    python_stamp >.venv/ready
fi

if [ -n "$frontend_problem" ]; then
    say_why "$frontend_problem"
    echo "Installing the front-end files of package-lock.json into node_modules/"
    [ ! -L node_modules ] || rm node_modules
    rm -f node_modules/installed-lock.json
    if [ -n "$bundle" ]; then
        mkdir -p node_modules
        find node_modules -mindepth 1 -delete # itself stays: in a virtual machine it is where a folder is mounted
        cp -R "$unpacked/node_modules/." node_modules
    else
        run_showing '^added' installer npm ci --no-audit --no-fund --ignore-scripts ||
            refuse "npm failed (see above). $advice"
    fi
    problem=$(proof $python frontend) || refuse "The files in node_modules/ do not work: $problem. Run this again."
    cp package-lock.json node_modules/installed-lock.json
fi
