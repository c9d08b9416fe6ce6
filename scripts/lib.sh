# Shared by the scripts: packages, the build, and an unprivileged user to run as. Sourced, not run.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

build_packages=(gcc cmake ninja-build pkg-config libc6-dev libzydis-dev liblzma-dev libelf-dev libdw-dev libunwind-dev
    libseccomp-dev libedit-dev check)
test_packages=(clang clang-format clang-tidy libclang-rt-dev groff-base qemu-system-x86 seabios u-boot-qemu python3 util-linux)

say() {
    printf '\n== %s\n' "$*" >&2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "ring3: '$*' needs root; run it yourself (sudo is not installed), then start this script again" >&2
        return 1
    fi
}

# Installs those of the named packages that are missing; asks the network only then.
need_packages() {
    local missing=() package
    for package in "$@"; do
        # libclang-rt-dev is a real package on newer releases, versioned on Debian 12.
        if [ "$package" = libclang-rt-dev ]; then
            ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-x86_64.a >/dev/null 2>&1 && continue
            command -v clang >/dev/null && package=libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev || package=libclang-rt-14-dev
        fi
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return 0
    say "installing packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# configure_preset PRESET, build_preset PRESET [TARGET...]: into build/PRESET; all targets, if none is named.
configure_preset() {
    local log=$top/build/$1.configure.log
    cmake -S "$top" --preset "$1" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

build_preset() {
    local preset=$1 log=$top/build/$1.build.log
    shift
    say "building ($preset)"
    configure_preset "$preset"
    if [ -t 2 ]; then # Ninja shows how far it is
        cmake --build "$top/build/$preset" ${1:+--target "$@"} >&2
    else
        cmake --build "$top/build/$preset" ${1:+--target "$@"} >"$log" 2>&1 || { cat "$log" >&2; return 1; }
    fi
}

# Runs a command as nobody, without any capability, when we are root; as ourselves otherwise.
unprivileged() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
            env HOME=/tmp "$@"
    else
        "$@"
    fi
}
