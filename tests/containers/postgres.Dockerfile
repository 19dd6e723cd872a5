# PostgreSQL for where no registry is: Debian's, which takes the official image's variables.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends postgresql && \
    rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*/main && \
    install --directory --owner=postgres --group=postgres --mode=700 /var/lib/postgresql/data
COPY postgres.sh /usr/local/bin/postgres.sh
# By name: Debian gives the number.
# hadolint ignore=DL3066
USER postgres
ENTRYPOINT ["sh", "/usr/local/bin/postgres.sh"]
