# The whole workshop in one image. `docker build` runs in the folder of the repository, and README.md shows how:
#
#   system      Debian 13 with the packages of provision.sh and a user: the dev container begins with it
#   workshop    the same with the repository and all that `./workshop setup` installs
#
# BASE is another image of Debian 13, such as your company's with the certificate of its proxy.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS system
# What the exercises and demonstrations use at a prompt.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        bash-completion ca-certificates curl git less nano procps \
    && rm -rf /var/lib/apt/lists/*
COPY platform/provision.sh platform/readiness.sh /provision/platform/
RUN bash /provision/platform/provision.sh --system && rm -rf /provision /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home --shell /bin/bash learner
ENV LANG=C.UTF-8
USER learner

FROM system AS workshop
# WORKDIR would make a folder that belongs to root.
RUN mkdir /home/learner/workshop
WORKDIR /home/learner/workshop
COPY --chown=learner . .
RUN ./workshop setup && rm -rf ~/.cache ~/.npm
# A repository of the image's own, for `git diff` and `git stash`: that of the host may contain passwords.
RUN git init --quiet && git add . \
    && git -c user.name=workshop -c user.email=workshop@localhost commit --quiet --message "Add the workshop"
# `docker run --publish` reaches the container's interface, not its loopback.
ENV WORKSHOP_BIND=0.0.0.0
# As in platform/ports.json.
EXPOSE 8080-8085
# bash ends on SIGHUP. An interactive bash ignores SIGTERM.
STOPSIGNAL SIGHUP
CMD ["bash"]
