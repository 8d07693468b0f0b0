# The base with the Python packages of requirements.lock, as they were downloaded and checked, in wheels/ of the context.
# The images of the services are built with it, and take only what each of them names.
ARG BASE
FROM ${BASE}
COPY wheels /wheels
USER root
