# What every container of the workshop begins with: Debian (or Ubuntu) with Python, HAProxy, etcd, Redis and PostgreSQL.
# The context has debs/: the packages that the base lacks. Nothing is downloaded here.
ARG BASE
FROM ${BASE} AS installed
COPY debs /debs
# No server is started as it is installed, and PostgreSQL makes no databases: all that is done in .run/.
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
    && mkdir -p /etc/postgresql-common/createcluster.d \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/workshop.conf \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /debs/*.deb \
    && rm -rf /debs
# The user that is to run everything here: root has no business in a container, either.
ARG USER_ID=1000
RUN useradd --uid ${USER_ID} --non-unique --no-log-init --no-create-home --shell /usr/sbin/nologin workshop

# In one layer, without the packages that it came from.
FROM scratch
COPY --from=installed / /
ENV LANG=C.UTF-8
USER workshop
