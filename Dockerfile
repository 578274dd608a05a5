# Tollgate as a minimal image: the program, its licence, a C library and certificates; no shell, no root.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) -t tollgate .
#
# The same commit on the same base images gives the same program: versions are those of Cargo.lock, paths of the
# build are cut out, nothing of the day goes in. Tags can be moved: for a build that can be repeated name both base
# images by digest (--build-arg BUILDER=rust@sha256:... --build-arg RUNTIME=gcr.io/distroless/cc-debian12@sha256:...).

# Both are Debian 12, so that the program finds the C library that it was linked with.
ARG BUILDER=docker.io/library/rust:1.95.0-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /build
ENV CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    RUSTFLAGS="--remap-path-prefix=/build=. --remap-path-prefix=/usr/local/cargo=cargo"
COPY Cargo.toml Cargo.lock build.rs LICENSE README.md ./
COPY benches benches
COPY proto proto
COPY samples samples
COPY src src
RUN cargo build --locked --release --bin tollgate

FROM ${RUNTIME}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="Real-time call authorization for session border controllers, over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/target/release/tollgate /tollgate
COPY --from=build /build/LICENSE /LICENSE
# By number: Kubernetes cannot tell whether a name is root.
USER 65532:65532
# Where calls, administration and health are by default on loopback; settings may put them on the network.
EXPOSE 7601 7602 7603
STOPSIGNAL SIGTERM
ENTRYPOINT ["/tollgate"]
CMD ["serve"]
