#!/bin/bash
# Builds the image step by step as the Dockerfile says, with buildah, and runs what is in it as no root on a read-only
# root. Needs root, and no registry: packages of Debian 12 stand in for both base images, and a program that was built
# before (the first argument) for its compiler. So this shows that the Dockerfile's steps make an image that runs, not
# that cargo builds in the official image of Rust. `make image` does that where the base images can be had.
set -euo pipefail

program=$(realpath "${1:?expected a program built for release}")
home=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
pid=
finish() {
    [ -z "$pid" ] || { kill "$pid" && wait "$pid"; } 2>/dev/null || true
    umount "$work/image" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# A storage of its own, which ends with it.
build() { buildah --storage-driver vfs --root "$work/root" --runroot "$work/run" "$@"; }

# What gcr.io/distroless/cc-debian12 holds, and what a compiler's image needs to copy a program.
mmdebstrap --quiet --variant=extract \
    --include=base-files,ca-certificates,libc6,libgcc-s1,libssl3,libstdc++6,media-types,netbase,tzdata \
    bookworm "$work/runtime.tar"
mmdebstrap --quiet --variant=extract --include=dash,coreutils,libc-bin,base-files bookworm "$work/builder.tar"
cp "$program" "$work/tollgate"
strip --strip-debug "$work/tollgate"
cat >"$work/cargo" <<'STAND_IN'
#!/bin/dash
[ "$*" = "build --locked --release --bin tollgate" ] || exit 1
mkdir -p target/release && cp /opt/tollgate target/release/tollgate
STAND_IN
chmod +x "$work/cargo"
stand_in() { # NAME ARCHIVE
    local container
    container=$(build from scratch)
    build add --quiet "$container" "$2" / >/dev/null
    if [ "$1" = builder ]; then
        build copy --quiet "$container" "$work/tollgate" /opt/tollgate >/dev/null
        build copy --quiet "$container" "$work/cargo" /usr/bin/cargo >/dev/null
        ln -sf dash "$(build mount "$container")/bin/sh"
        build umount "$container" >/dev/null
    fi
    build commit --quiet "$container" "localhost/stand-in-$1" >/dev/null
    build rm "$container" >/dev/null
}
stand_in builder "$work/builder.tar"
stand_in runtime "$work/runtime.tar"

revision=$(git -C "$home" rev-parse HEAD)
build bud --isolation chroot --pull-never --quiet --build-arg "REVISION=$revision" \
    --build-arg BUILDER=localhost/stand-in-builder --build-arg RUNTIME=localhost/stand-in-runtime \
    --tag tollgate "$home" >/dev/null

say() { echo "image-check: $*"; }
settings=$(build inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' tollgate)
[ "$settings" = "65532:65532 [/tollgate] [serve]" ] || { say "unexpected: $settings"; exit 1; }
build inspect --type image --format '{{.OCIv1.Config.Labels}}' tollgate | grep -q "revision:$revision"

container=$(build from tollgate)
mkdir "$work/image"
mount --bind "$(build mount "$container")" "$work/image"
mount -o remount,bind,ro "$work/image"
inside() { chroot --userspec=65532:65532 "$work/image" "$@"; }
inside /tollgate --version
inside /tollgate check-config 2>/dev/null
if inside /bin/sh -c true 2>/dev/null; then say "there is a shell in it"; exit 1; fi
(exec chroot --userspec=65532:65532 "$work/image" /tollgate serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 2>"$work/log") &
pid=$!
address=
for _ in $(seq 100); do
    address=$(grep -o 'http=[0-9.:]*' "$work/log" | cut -d= -f2 || true)
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { say "it does not serve"; cat "$work/log"; exit 1; }
for path in livez readyz; do say "/$path: $(curl --silent --fail --show-error "http://$address/$path")"; done
kill "$pid"
wait "$pid" || { say "it does not end in order"; exit 1; }
pid=
say "the program $(stat -c %s "$work/image/tollgate") bytes, the image $(build images --format '{{.Size}}' localhost/tollgate)"
