# Builds the gateway and puts the one binary into a small image that does not run as root.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/imagegate imagegate
COPY --from=build /build/target/release/imagegate /usr/local/bin/imagegate
USER imagegate
WORKDIR /var/lib/imagegate
ENV IMAGEGATE_BIND=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD curl -fsS http://127.0.0.1:8080/readyz || exit 1
ENTRYPOINT ["imagegate"]
CMD ["serve"]
